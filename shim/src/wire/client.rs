//! One connection of a ttrpc client: calls in, bytes out; bytes in, answers out.

use std::time::Duration;

use super::frame::{Data, Outgoing, REQUEST, RESPONSE, Reader};
use super::messages::{KeyValue, Request, Response};
use super::status::{Code, Status};
use super::{Torn, decode, encode};

#[derive(Debug)]
pub struct Client {
    reader: Reader,
    out: Outgoing,
    next: u32,
}

impl Default for Client {
    fn default() -> Self {
        Self { reader: Reader::default(), out: Outgoing::default(), next: 1 }
    }
}

impl Client {
    /// The stream on which the answer will come.
    pub fn call(
        &mut self,
        service: &str,
        method: &str,
        payload: &[u8],
        metadata: &[(&str, &str)],
        patience: Duration,
    ) -> Result<u32, Torn> {
        let pair = |&(key, value): &(&str, &str)| KeyValue {
            key: key.into(),
            value: value.into(),
            ..Default::default()
        };
        let request = Request {
            service: service.to_owned(),
            method: method.to_owned(),
            payload: payload.to_vec(),
            timeout_nano: i64::try_from(patience.as_nanos()).unwrap_or(i64::MAX),
            metadata: metadata.iter().map(pair).collect(),
            ..Default::default()
        };
        let stream = self.next;
        if !self.out.push(stream, REQUEST, 0, &encode(&request)?) {
            return Err(Torn { message: "Request", why: "longer than a frame may be".to_owned() });
        }
        self.next += 2;
        Ok(stream)
    }

    /// The answers that `bytes` complete, each with its stream.
    pub fn received(&mut self, mut bytes: &[u8]) -> Vec<(u32, Result<Vec<u8>, Status>)> {
        let mut answers = Vec::new();
        while let Some(frame) = self.reader.next(&mut bytes) {
            // Data of a stream that was never opened, and kinds to come.
            if frame.kind != RESPONSE {
                continue;
            }
            let answer = match frame.data {
                Data::Whole(data) => answer(&data),
                Data::TooLong(_) => {
                    Err(Status::new(Code::RESOURCE_EXHAUSTED, "answer longer than a frame may be"))
                }
            };
            answers.push((frame.stream, answer));
        }
        answers
    }

    pub fn to_send(&self) -> &[u8] {
        self.out.to_send()
    }

    /// The socket has taken `n` bytes of [`Self::to_send`].
    pub fn sent(&mut self, n: usize) {
        self.out.sent(n);
    }
}

fn answer(data: &[u8]) -> Result<Vec<u8>, Status> {
    let response: Response = decode(data).map_err(|torn| Status::new(Code::INTERNAL, torn.to_string()))?;
    match response.status.as_ref().and_then(Status::from_message) {
        None => Ok(response.payload),
        Some(status) => Err(status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_odd_and_rise() {
        let mut client = Client::default();
        let streams =
            [(); 3].map(|()| client.call("s", "m", b"", &[], Duration::from_secs(1)).expect("called"));
        assert_eq!(streams, [1, 3, 5]);
    }

    #[test]
    fn a_torn_answer_is_an_error_of_its_stream() {
        let mut out = Outgoing::default();
        assert!(out.push(1, RESPONSE, 0, &[18, 200]));
        let answers = Client::default().received(out.to_send());
        assert!(matches!(&answers[..], [(1, Err(Status { code: Code::INTERNAL, .. }))]), "{answers:?}");
    }

    #[test]
    fn a_status_of_success_is_success() {
        // Older servers send a status with code 0 beside the payload.
        let mut out = Outgoing::default();
        assert!(out.push(1, RESPONSE, 0, &[10, 0, 18, 1, b'x']));
        assert_eq!(Client::default().received(out.to_send()), [(1, Ok(vec![b'x']))]);
    }
}
