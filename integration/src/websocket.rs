//! Just enough WebSocket (RFC 6455) to speak to the streaming server of containerd's CRI as `kubectl exec` does: the
//! first byte of a message is its channel.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

pub const STDIN: u8 = 0;
pub const STDOUT: u8 = 1;
pub const STDERR: u8 = 2;
/// How it ended, a JSON document.
pub const STATUS: u8 = 3;
pub const RESIZE: u8 = 4;

const BINARY: u8 = 2;
const CLOSE: u8 = 8;
/// The last frame of a message; all of ours are.
const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;

#[derive(Debug)]
pub struct Channels {
    stream: TcpStream,
    /// What has come, by channel.
    pub said: [Vec<u8>; 5],
}

impl Channels {
    /// Asks the server at the other end for a path.
    ///
    /// # Panics
    /// When it does not change to WebSocket.
    pub fn open(mut stream: TcpStream, path: &str) -> Self {
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).expect("the request");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("the answer");
            answer.push(byte[0]);
        }
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        Self { stream, said: Default::default() }
    }

    /// # Panics
    /// When the server is gone, or the text is long.
    pub fn send(&mut self, channel: u8, text: &str) {
        let len = u8::try_from(text.len() + 1).ok().filter(|len| *len < 126).expect("a short text");
        // The mask of a client may be any; with this one the bytes stay as they are.
        let frame = [&[FIN | BINARY, MASKED | len, 0, 0, 0, 0, channel], text.as_bytes()].concat();
        self.stream.write_all(&frame).expect("send");
    }

    /// Reads until the server ends.
    ///
    /// # Panics
    /// When it does not.
    pub fn to_the_end(&mut self) {
        loop {
            match self.frame() {
                Ok((BINARY, payload)) => {
                    if let Some((channel, text)) = payload.split_first() {
                        self.said[usize::from(*channel)].extend_from_slice(text);
                    }
                }
                Ok((CLOSE, _)) => return,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return,
                Err(error) => panic!("{error}; until then {self:?}"),
            }
        }
    }

    fn frame(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head)?;
        let long = match head[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mut bytes = [0; 8];
        self.stream.read_exact(&mut bytes[8 - long..])?;
        let len = if long == 0 { u64::from(head[1] & 0x7f) } else { u64::from_be_bytes(bytes) };
        let mut payload = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        self.stream.read_exact(&mut payload)?;
        Ok((head[0] & 0xf, payload))
    }

    /// What came on a channel, as text.
    pub fn text(&self, channel: u8) -> String {
        String::from_utf8_lossy(&self.said[usize::from(channel)]).into_owned()
    }
}
