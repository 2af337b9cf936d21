//! As much of HTTP/1.1 as it takes to ask a task API over a connection that stays open.

use std::io::Write;

use thiserror::Error;

/// Header lines of an answer; servers send about ten.
const MAX_HEADERS: usize = 48;

/// Why bytes are no answer.
#[derive(Debug, Error)]
pub enum HttpError {
    /// Not HTTP.
    #[error("the answer is not HTTP: {0}")]
    Malformed(#[from] httparse::Error),
    /// Its end can't be told.
    #[error("the answer has no Content-Length")]
    NoLength,
}

/// A whole answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: &'a [u8],
}

/// The answer at the beginning of `bytes`; none if it has not arrived as a whole.
pub fn parse(bytes: &[u8]) -> Result<Option<Answer<'_>>, HttpError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(end) = head.parse(bytes)? else { return Ok(None) };
    let status = head.code.unwrap_or_default();
    let length = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = match length.and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok()) {
        Some(length) => length,
        None if matches!(status, 204 | 304) => 0,
        None => return Err(HttpError::NoLength),
    };
    Ok(bytes.get(end..end + length).map(|body| Answer { status, body }))
}

/// Writes a request to the end of `into`.
pub fn write(into: &mut Vec<u8>, method: &str, path: std::fmt::Arguments<'_>, authorization: &str, body: &str) {
    // Writing to memory does not fail.
    let _ = write!(into, "{method} {path} HTTP/1.1\r\nHost: bench\r\n");
    if !authorization.is_empty() {
        let _ = write!(into, "Authorization: Bearer {authorization}\r\n");
    }
    if body.is_empty() {
        into.extend_from_slice(b"\r\n");
    } else {
        let _ = write!(into, "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_or_awaited() {
        let bytes = b"HTTP/1.1 201 Created\r\nContent-Length: 5\r\n\r\nhello";
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end]).unwrap(), None, "{end} bytes");
        }
        assert_eq!(parse(bytes).unwrap(), Some(Answer { status: 201, body: b"hello" }));
    }

    #[test]
    fn no_body_needs_no_length() {
        let answer = parse(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
        assert_eq!(answer, Some(Answer { status: 204, body: b"" }));
        assert!(matches!(parse(b"HTTP/1.1 200 OK\r\n\r\n"), Err(HttpError::NoLength)));
        assert!(matches!(parse(b"hello there"), Err(HttpError::Malformed(_))));
    }

    #[test]
    fn a_request_says_how_long_its_body_is() {
        let mut bytes = Vec::new();
        write(&mut bytes, "POST", format_args!("/api/tasks/{}", 7), "t", "{}");
        let expected = "POST /api/tasks/7 HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer t\r\n\
                        Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    }
}
