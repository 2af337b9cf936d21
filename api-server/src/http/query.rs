//! Query strings, read strictly: what can't be meant is refused, not guessed.

use axum::{extract::FromRequestParts, http::request::Parts};
use percent_encoding::percent_decode_str;
use task_api_domain::validation::Form;

use crate::error::ApiError;

/// A query string.
#[derive(Debug)]
pub struct QueryForm(pub Form);

impl<S: Send + Sync> FromRequestParts<S> for QueryForm {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let pairs = pairs(parts.uri.query().unwrap_or_default()).map_err(ApiError::BadRequest)?;
        Ok(Self(Form::query(pairs)?))
    }
}

/// The names and values in `application/x-www-form-urlencoded`.
fn pairs(query: &str) -> Result<Vec<(String, String)>, std::borrow::Cow<'static, str>> {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decoded = decode(name).zip(decode(value));
        decoded.ok_or_else(|| format!("the query string can't be read at {pair:?}: % must begin two hexadecimal digits, and what they encode must be UTF-8").into())
    };
    query.split('&').filter(|pair| !pair.is_empty()).map(pair).collect()
}

fn decode(text: &str) -> Option<String> {
    let is_hex = |pair: Option<&[u8]>| pair.is_some_and(|pair| pair.iter().all(u8::is_ascii_hexdigit));
    let bytes = text.as_bytes();
    let whole = bytes.iter().enumerate().all(|(at, byte)| *byte != b'%' || is_hex(bytes.get(at + 1..at + 3)));
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8().ok()?;
    whole.then(|| decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(query: &str) -> Option<Vec<(String, String)>> {
        pairs(query).ok()
    }

    #[test]
    fn query_strings() {
        let of = |pairs: &[(&str, &str)]| Some(pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect());
        assert_eq!(read(""), of(&[]));
        assert_eq!(read("a=b&&c=d+e%2B%C3%A4&f"), of(&[("a", "b"), ("c", "d e+ä"), ("f", "")]));
        assert_eq!(read("a=b=c"), of(&[("a", "b=c")]));
        for bad in ["a=%", "a=%4", "%zz=1", "a=%ff", "a=%+1", "a=100%25%"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(query in ".{0,60}") {
            let _ = read(&query);
        }
    }
}
