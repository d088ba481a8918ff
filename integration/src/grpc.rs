//! gRPC without a library: HTTP/2 in clear text on a unix socket, one call on a connection of its own. That is all
//! that containerd's CRI wants of a client, and it costs the build nothing.
//!
//! HTTP/2 is RFC 9113, its header compression RFC 7541, gRPC over it
//! <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::proto::{Fields, Message};
use crate::ttrpc::Refusal;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
/// Of DATA and HEADERS.
const END_STREAM: u8 = 1;
/// Of SETTINGS and PING.
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;

/// Calls `/package.Service/Method`, which answers with one message.
///
/// # Errors
/// The status, when it is not OK.
///
/// # Panics
/// When the connection cannot be made or breaks, or its bytes are no HTTP/2.
#[track_caller]
pub fn call(socket: &Path, method: &str, request: &Message) -> Result<Fields, Refusal> {
    call_with(&[], socket, method, request)
}

/// As [`call`], with further headers.
///
/// # Errors
/// The status, when it is not OK.
///
/// # Panics
/// As [`call`] does.
#[track_caller]
pub fn call_with(
    more: &[(&str, &str)],
    socket: &Path,
    method: &str,
    request: &Message,
) -> Result<Fields, Refusal> {
    match exchange(more, socket, method, request) {
        Ok((headers, body)) => {
            let header =
                |name: &str| headers.iter().rev().find(|(found, _)| found == name).map(|(_, value)| value);
            let status = header("grpc-status").and_then(|status| status.parse().ok());
            match status.unwrap_or_else(|| panic!("{method}: no status: {headers:?}")) {
                0 => {
                    // A byte for compression and four for the length stand before the message.
                    let message = body.get(5..).unwrap_or_default();
                    Ok(Fields::decode(message).unwrap_or_else(|error| panic!("{method}: {error}")))
                }
                code => Err(Refusal { code, message: header("grpc-message").cloned().unwrap_or_default() }),
            }
        }
        Err(error) => panic!("{method} at {}: {error}", socket.display()),
    }
}

type Headers = Vec<(String, String)>;

fn exchange(
    more: &[(&str, &str)],
    socket: &Path,
    method: &str,
    request: &Message,
) -> io::Result<(Headers, Vec<u8>)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?;
    // No memory of earlier headers (1), and a window (4 and the connection's own) wider than any answer.
    let window = i32::MAX.to_be_bytes();
    let settings = [&[0, 1, 0, 0, 0, 0, 0, 4][..], &window].concat();
    frame(&mut stream, SETTINGS, 0, 0, &settings)?;
    frame(&mut stream, WINDOW_UPDATE, 0, 0, &(i32::MAX - 65_535).to_be_bytes())?;
    let mut headers = Vec::new();
    let always = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", method),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    for (name, value) in always.iter().chain(more) {
        // A literal that is not kept, with its name.
        headers.push(0);
        string(&mut headers, name);
        string(&mut headers, value);
    }
    frame(&mut stream, HEADERS, END_HEADERS, 1, &headers)?;
    let message = request.as_ref();
    let len = u32::try_from(message.len()).map_err(io::Error::other)?;
    frame(&mut stream, DATA, END_STREAM, 1, &[&[0][..], &len.to_be_bytes(), message].concat())?;
    answer(&mut stream)
}

/// Frames until the stream's end.
fn answer(stream: &mut UnixStream) -> io::Result<(Headers, Vec<u8>)> {
    let (mut headers, mut body, mut block, mut ends) = (Headers::new(), Vec::new(), Vec::new(), false);
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head)?;
        let len = head[..3].iter().fold(0, |len, byte| len << 8 | usize::from(*byte));
        let (kind, flags) = (head[3], head[4]);
        let mut payload = vec![0; len];
        stream.read_exact(&mut payload)?;
        match kind {
            DATA => body.extend_from_slice(unpadded(&payload, flags)?),
            HEADERS | CONTINUATION => {
                let part = if kind == HEADERS { unpadded(&payload, flags)? } else { &payload[..] };
                let priority = if kind == HEADERS && flags & PRIORITY != 0 { 5 } else { 0 };
                block.extend_from_slice(part.get(priority..).ok_or_else(|| wrong("a short HEADERS"))?);
                if flags & END_HEADERS != 0 {
                    decode(&std::mem::take(&mut block), &mut headers)?;
                }
            }
            SETTINGS | PING if flags & ACK == 0 => {
                let echo = if kind == PING { payload.as_slice() } else { &[] };
                frame(stream, kind, ACK, 0, echo)?;
            }
            RST_STREAM | GOAWAY => {
                return Err(wrong(&format!("the server gave up: frame {kind}, {payload:?}")));
            }
            _ => {}
        }
        // The end stands on the first frame of the trailers, which may have a continuation.
        ends |= matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0;
        if ends && block.is_empty() {
            return Ok((headers, body));
        }
    }
}

fn frame(stream: &mut UnixStream, kind: u8, flags: u8, number: u32, payload: &[u8]) -> io::Result<()> {
    let len = u32::try_from(payload.len()).map_err(io::Error::other)?;
    let head = [&len.to_be_bytes()[1..], &[kind, flags], &number.to_be_bytes()].concat();
    stream.write_all(&[&head, payload].concat())
}

fn unpadded(payload: &[u8], flags: u8) -> io::Result<&[u8]> {
    if flags & PADDED == 0 {
        return Ok(payload);
    }
    let (padding, rest) = payload.split_first().ok_or_else(|| wrong("no padding"))?;
    let len = rest.len().checked_sub(usize::from(*padding)).ok_or_else(|| wrong("too much padding"))?;
    Ok(&rest[..len])
}

fn wrong(what: &str) -> io::Error {
    io::Error::other(what)
}

/// A string as it is, not by the Huffman code.
fn string(block: &mut Vec<u8>, text: &str) {
    let len = u8::try_from(text.len()).ok().filter(|len| *len < 127).expect("a short header");
    block.push(len);
    block.extend_from_slice(text.as_bytes());
}

/// A header block. Names and values from the table that RFC 7541 begins with are shown by their number: those of gRPC
/// are not in it.
fn decode(mut block: &[u8], headers: &mut Headers) -> io::Result<()> {
    while let Some(first) = block.first().copied() {
        if first & 0x80 != 0 {
            let index = integer(&mut block, 7)?;
            headers.push((format!("#{index}"), String::new()));
        } else if first & 0xe0 == 0x20 {
            // The size of the table, which is 0.
            integer(&mut block, 5)?;
        } else {
            let index = integer(&mut block, if first & 0x40 != 0 { 6 } else { 4 })?;
            let name = if index == 0 { text(&mut block)? } else { format!("#{index}") };
            headers.push((name, text(&mut block)?));
        }
    }
    Ok(())
}

fn integer(block: &mut &[u8], bits: u32) -> io::Result<usize> {
    let mut next = || -> io::Result<usize> {
        let (first, rest) = block.split_first().ok_or_else(|| wrong("the headers end in a number"))?;
        *block = rest;
        Ok(usize::from(*first))
    };
    let mask = (1 << bits) - 1;
    let mut number = next()? & mask;
    if number == mask {
        for shift in (0..28).step_by(7) {
            let byte = next()?;
            number += (byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        return Err(wrong("a long number in the headers"));
    }
    Ok(number)
}

fn text(block: &mut &[u8]) -> io::Result<String> {
    let is_huffman = block.first().is_some_and(|first| first & 0x80 != 0);
    let len = integer(block, 7)?;
    let (bytes, rest) = block.split_at_checked(len).ok_or_else(|| wrong("the headers end in a string"))?;
    *block = rest;
    let bytes = if is_huffman { huffman(bytes)? } else { bytes.to_vec() };
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The lengths of the codes of ASCII from 32 on (RFC 7541, appendix B). The code is canonical: by length, and then by
/// the character; those up to 15 bits are all in here but for one of NUL, with 13. No text of gRPC needs another.
const CODE_LENGTHS: [u8; 95] = [
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12,
    10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13,
];

fn huffman(bytes: &[u8]) -> io::Result<Vec<u8>> {
    // (length, code, character), in the order of the code.
    let mut codes: Vec<(u8, u32, u8)> = vec![(13, 0, 0)];
    codes.extend((32..).zip(CODE_LENGTHS).map(|(character, len)| (len, 0, character)));
    codes.retain(|(len, ..)| *len <= 15);
    codes.sort_by_key(|(len, _, character)| (*len, *character));
    let (mut code, mut last) = (0, 5);
    for entry in &mut codes {
        code <<= entry.0 - last;
        (entry.1, last) = (code, entry.0);
        code += 1;
    }
    let (mut text, mut code, mut len) = (Vec::new(), 0_u32, 0_u8);
    for bit in bytes.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)) {
        (code, len) = (code << 1 | u32::from(bit), len + 1);
        if let Some((.., character)) = codes.iter().find(|entry| (entry.0, entry.1) == (len, code)) {
            text.push(*character);
            (code, len) = (0, 0);
        } else if len > 15 {
            return Err(wrong("a character that is not expected in the headers"));
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 7541, appendix C.4 and C.6.
    #[test]
    fn the_examples_of_the_rfc_are_read() {
        for (bytes, text) in [
            (&b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff"[..], "www.example.com"),
            (b"\xa8\xeb\x10\x64\x9c\xbf", "no-cache"),
            (b"\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f", "custom-key"),
            (b"\xae\xc3\x77\x1a\x4b", "private"),
            (
                b"\x9d\x29\xad\x17\x18\x63\xc7\x8f\x0b\x97\xc8\xe9\xae\x82\xae\x43\xd3",
                "https://www.example.com",
            ),
        ] {
            assert_eq!(huffman(bytes).expect("a text"), text.as_bytes());
        }
    }

    #[test]
    fn a_header_block_is_read() {
        let mut headers = Headers::new();
        // The table's size, an indexed field, and a literal that would be kept.
        decode(b"\x20\x88\x40\x0bgrpc-status\x010", &mut headers).expect("headers");
        assert_eq!(headers, [("#8".into(), String::new()), ("grpc-status".into(), "0".into())]);
        assert!(decode(b"\x40\x0bgrpc", &mut headers).is_err());
    }
}
