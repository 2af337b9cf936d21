//! Compression of answers, for clients that ask for it and where it pays: JSON of a kilobyte or more.
//!
//! A strong `ETag` stands for the very bytes, so it becomes a weak one, which still serves `If-None-Match`. A single task is left as it
//! is: its clients send its tag back in `If-Match`, which takes strong ones only.

use std::io::{self, Write};

use axum::{
    body::{Body, Bytes, HttpBody, to_bytes},
    http::{HeaderMap, HeaderValue, header},
    response::Response,
};
use brotli::enc::BrotliEncoderParams;
use flate2::{Compression, write::GzEncoder};
use tokio::task::spawn_blocking;

/// Smaller answers fit into a packet anyway.
const SMALLEST: u64 = 1 << 10;
/// Larger ones keep a thread busy for so long that it should not be one that serves others.
const LARGE: usize = 64 << 10;

/// Beyond these levels, time grows faster than size shrinks.
const BROTLI_QUALITY: i32 = 4;
const GZIP_LEVEL: u32 = 5;

/// How an answer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Smaller.
    Brotli,
    /// For clients that don't know it.
    Gzip,
}

impl Encoding {
    /// What a client likes best of what there is. Nothing, if it likes its answers uncompressed.
    pub fn accepted(headers: &HeaderMap) -> Option<Self> {
        if !headers.contains_key(header::ACCEPT_ENCODING) {
            return None;
        }
        let accept = Accept::read(headers);
        let best = if accept.brotli >= accept.gzip { (Self::Brotli, accept.brotli) } else { (Self::Gzip, accept.gzip) };
        (best.1 > 0 && best.1 >= accept.identity).then_some(best.0)
    }

    fn name(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        })
    }

    fn compress(self, body: &[u8]) -> io::Result<Vec<u8>> {
        let mut compressed = Vec::with_capacity(body.len() / 4);
        match self {
            Self::Brotli => {
                let params = BrotliEncoderParams {
                    quality: BROTLI_QUALITY,
                    // A window larger than the body only costs memory.
                    lgwin: (body.len().max(2).ilog2() + 1).clamp(10, 22).cast_signed(),
                    size_hint: body.len(),
                    ..BrotliEncoderParams::default()
                };
                brotli::BrotliCompress(&mut &*body, &mut compressed, &params)?;
            }
            Self::Gzip => {
                let mut encoder = GzEncoder::new(&mut compressed, Compression::new(GZIP_LEVEL));
                encoder.write_all(body)?;
                encoder.finish()?;
            }
        }
        Ok(compressed)
    }
}

/// How much a client likes each encoding, in thousandths.
#[derive(Debug, PartialEq, Eq)]
struct Accept {
    brotli: u16,
    gzip: u16,
    /// Zero where it is not mentioned: it is always acceptable, but who mentions others prefers them.
    identity: u16,
}

impl Accept {
    fn read(headers: &HeaderMap) -> Self {
        let (mut brotli, mut gzip, mut identity, mut any) = (None, None, None, None);
        let values = headers.get_all(header::ACCEPT_ENCODING).into_iter().filter_map(|value| value.to_str().ok());
        for item in values.flat_map(|value| value.split(',')) {
            let (name, weight) = weighed(item);
            match name.to_ascii_lowercase().as_str() {
                "br" => brotli = Some(weight),
                "gzip" | "x-gzip" => gzip = Some(weight),
                "identity" => identity = Some(weight),
                "*" => any = Some(weight),
                _ => {}
            }
        }
        let other = any.unwrap_or_default();
        Self { brotli: brotli.unwrap_or(other), gzip: gzip.unwrap_or(other), identity: identity.unwrap_or_default() }
    }
}

/// `gzip;q=0.5` as (`gzip`, 500). What can't be read is not liked.
fn weighed(item: &str) -> (&str, u16) {
    let mut parts = item.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q="))).unwrap_or("1");
    let (whole, digits) = weight.split_once('.').unwrap_or((weight, ""));
    let weight = match (whole, digits.len()) {
        ("1", _) => 1000,
        ("0", 0..=3) => format!("{digits:0<3}").parse().unwrap_or_default(),
        _ => 0,
    };
    (name, weight)
}

/// Compresses an answer as its client `accepted`, if that pays.
pub async fn compress(mut response: Response, accepted: Option<Encoding>) -> Response {
    if !pays(&response) {
        return response;
    }
    response.headers_mut().append(header::VARY, HeaderValue::from_static("accept-encoding"));
    let Some(encoding) = accepted else { return response };
    let (mut head, body) = response.into_parts();
    // It is in memory already, so there is no limit to keep.
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let Some(compressed) = compressed(encoding, body.clone()).await else {
        return Response::from_parts(head, Body::from(body));
    };
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers.insert(header::CONTENT_ENCODING, encoding.name());
    weaken_etag(&mut head.headers);
    Response::from_parts(head, Body::from(compressed))
}

async fn compressed(encoding: Encoding, body: Bytes) -> Option<Vec<u8>> {
    if body.len() < LARGE {
        return encoding.compress(&body).ok();
    }
    spawn_blocking(move || encoding.compress(&body)).await.ok()?.ok()
}

fn pays(response: &Response) -> bool {
    let headers = response.headers();
    let starts =
        |name, prefix: &[u8]| headers.get(name).is_some_and(|value: &HeaderValue| value.as_bytes().starts_with(prefix));
    response.body().size_hint().exact().is_some_and(|size| size >= SMALLEST)
        && !headers.contains_key(header::CONTENT_ENCODING)
        && (starts(header::CONTENT_TYPE, b"application/json")
            || starts(header::CONTENT_TYPE, b"application/problem+json"))
        && !headers.get(header::ETAG).is_some_and(is_version)
}

/// Whether a tag is the version of a task, such as `"3"`.
fn is_version(etag: &HeaderValue) -> bool {
    let opaque = etag.as_bytes().strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    opaque.is_some_and(|opaque| opaque.iter().all(u8::is_ascii_digit))
}

fn weaken_etag(headers: &mut HeaderMap) {
    let strong = headers.get(header::ETAG).map(HeaderValue::as_bytes).filter(|etag| etag.starts_with(b"\""));
    if let Some(Ok(weak)) = strong.map(|etag| HeaderValue::from_bytes(&[b"W/", etag].concat())) {
        headers.insert(header::ETAG, weak);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn accepted(value: &str) -> Option<Encoding> {
        Encoding::accepted(&HeaderMap::from_iter([(header::ACCEPT_ENCODING, value.parse().unwrap())]))
    }

    #[test]
    fn clients_choose() {
        use Encoding::{Brotli, Gzip};
        for (value, encoding) in [
            ("br", Some(Brotli)),
            ("gzip, deflate, br, zstd", Some(Brotli)),
            ("gzip", Some(Gzip)),
            ("GZIP;q=0.5", Some(Gzip)),
            ("br;q=0.4, gzip;q=0.8", Some(Gzip)),
            ("br;q=0, gzip", Some(Gzip)),
            ("*", Some(Brotli)),
            ("*, br;q=0", Some(Gzip)),
            ("identity, br;q=0.5", None),
            ("identity;q=0.5, gzip;q=0.5", Some(Gzip)),
            ("gzip;q=0.001", Some(Gzip)),
            ("*;q=0", None),
            ("br;q=0.0000", None),
            ("br;q=much", None),
            ("deflate, zstd", None),
            ("", None),
        ] {
            assert_eq!(accepted(value), encoding, "{value}");
        }
        assert_eq!(Encoding::accepted(&HeaderMap::new()), None);
    }

    fn answer(content_type: &'static str, body: String, etag: Option<&'static str>) -> Response {
        let mut response = Response::new(Body::from(body));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        if let Some(etag) = etag {
            response.headers_mut().insert(header::ETAG, HeaderValue::from_static(etag));
        }
        response
    }

    async fn bytes(response: Response) -> Vec<u8> {
        to_bytes(response.into_body(), usize::MAX).await.unwrap().to_vec()
    }

    #[tokio::test]
    async fn what_is_compressed_comes_out_again() {
        for size in [1024, 5000, LARGE + 1, 3 << 20] {
            let items: String = (0..size / 8).map(|number| number.to_string() + "},{\"id\":").collect();
            let body = items[..size].to_owned();
            for encoding in [Encoding::Brotli, Encoding::Gzip] {
                let response = compress(answer("application/json", body.clone(), Some("\"a1\"")), Some(encoding)).await;
                assert_eq!(response.headers()[header::CONTENT_ENCODING], encoding.name());
                assert_eq!(response.headers()[header::VARY], "accept-encoding");
                assert_eq!(response.headers()[header::ETAG], "W/\"a1\"");
                let compressed = bytes(response).await;
                assert!(compressed.len() < size / 2, "{encoding:?}: {} of {size}", compressed.len());
                let mut plain = String::new();
                match encoding {
                    Encoding::Brotli => brotli::Decompressor::new(&*compressed, 4096).read_to_string(&mut plain),
                    Encoding::Gzip => flate2::read::GzDecoder::new(&*compressed).read_to_string(&mut plain),
                }
                .unwrap();
                assert!(plain == body, "{encoding:?}, {size}");
            }
        }
    }

    #[tokio::test]
    async fn what_does_not_pay_is_left_alone() {
        let long = "x".repeat(2000);
        for response in [
            answer("application/json", "x".repeat(1000), None),
            answer("image/png", long.clone(), None),
            answer("application/json", long.clone(), Some("\"1\"")),
        ] {
            let response = compress(response, Some(Encoding::Gzip)).await;
            assert!(!response.headers().contains_key(header::VARY));
            assert!(!response.headers().contains_key(header::CONTENT_ENCODING));
            assert!(bytes(response).await.starts_with(b"xxx"));
        }
        let response = compress(answer("application/json", long.clone(), None), None).await;
        assert_eq!(response.headers()[header::VARY], "accept-encoding", "another client may get other bytes");
        assert!(bytes(response).await == long.as_bytes());
    }
}
