//! Entity tags and the conditions that requests make of them (RFC 9110, sections 8.8.3 and 13.1).

use std::fmt;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderName, HeaderValue, header, request::Parts},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};

use utoipa::{
    IntoParams,
    openapi::path::{Parameter, ParameterIn},
};

use crate::{error::ApiError, http::parameters::header_parameter};

/// What tells one state of a resource from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ETag {
    weak: bool,
    /// What is between the quotation marks.
    opaque: String,
}

impl ETag {
    /// The tag of a thing that counts its changes.
    pub fn of_version(version: i64) -> Self {
        Self { weak: false, opaque: version.to_string() }
    }

    /// The tag of just these bytes.
    pub fn of_body(body: &[u8]) -> Self {
        // 128 bits: no two bodies of a client will meet.
        Self { weak: false, opaque: URL_SAFE_NO_PAD.encode(&Sha256::digest(body)[..16]) }
    }

    /// The tag of what has this hash.
    pub fn of_hash(hash: u64) -> Self {
        Self { weak: false, opaque: URL_SAFE_NO_PAD.encode(hash.to_be_bytes()) }
    }

    /// The tag of all bodies that say the same as this, if not in the same bytes.
    pub fn of_meaning(body: &[u8]) -> Self {
        Self { weak: true, ..Self::of_body(body) }
    }

    /// The version in it, if it is the strong tag of one.
    pub fn version(&self) -> Option<i64> {
        let version = self.opaque.parse().ok()?;
        // `parse` alone would take "+7" and "07" too.
        (*self == Self::of_version(version)).then_some(version)
    }

    /// Reads a tag that stands alone.
    pub fn parse(text: &str) -> Option<Self> {
        Self::read(text).filter(|(_, rest)| rest.is_empty()).map(|(tag, _)| tag)
    }

    /// As it goes into a header.
    pub fn to_header(&self) -> HeaderValue {
        // Every character of a tag may be in a header.
        HeaderValue::from_str(&self.to_string()).unwrap_or(HeaderValue::from_static("\"\""))
    }

    /// Reads one tag and gives what follows it.
    fn read(text: &str) -> Option<(Self, &str)> {
        let (weak, text) = text.strip_prefix("W/").map_or((false, text), |text| (true, text));
        let (opaque, rest) = text.strip_prefix('"')?.split_once('"')?;
        let allowed = opaque.chars().all(|c| c == '!' || ('#'..='~').contains(&c));
        allowed.then(|| (Self { weak, opaque: opaque.to_owned() }, rest))
    }
}

impl fmt::Display for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\"{}\"", if self.weak { "W/" } else { "" }, self.opaque)
    }
}

impl Serialize for ETag {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The tags in `If-Match` or `If-None-Match`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tags {
    /// `*`: whatever is there.
    Any,
    /// One of these.
    Of(Vec<ETag>),
}

impl Tags {
    /// Reads all values of a header; none, if it is not there.
    fn read(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Self>, ApiError> {
        if !headers.contains_key(name) {
            return Ok(None);
        }
        let values: Option<Vec<_>> = headers.get_all(name).iter().map(|value| value.to_str().ok()).collect();
        let tags = values.and_then(|values| Self::parse(&values.join(",")));
        tags.map(Some).ok_or_else(|| {
            ApiError::BadRequest(
                format!("the header {name} is malformed: send * or ETags as they were received, such as \"3\"").into(),
            )
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let mut rest = text.trim_matches(BLANK);
        if rest == "*" {
            return Some(Self::Any);
        }
        let mut tags = Vec::new();
        while !rest.is_empty() {
            let (tag, after) = ETag::read(rest)?;
            tags.push(tag);
            let after = after.trim_start_matches(BLANK);
            rest = match after.strip_prefix(',') {
                Some(next) => next.trim_start_matches([' ', '\t', ',']),
                None if after.is_empty() => after,
                None => return None,
            };
        }
        (!tags.is_empty()).then_some(Self::Of(tags))
    }
}

const BLANK: [char; 2] = [' ', '\t'];

/// [`Tags`] as a regular expression.
const PATTERN: &str = r#"^(\*|(W/)?"[!#-~]*"([ \t]*,[ \t]*(W/)?"[!#-~]*")*)$"#;

/// `If-None-Match` of a read: what the client has already.
#[derive(Debug)]
pub struct IfNoneMatch(Option<Tags>);

impl IfNoneMatch {
    /// Whether the client has what `tag` stands for. Weak tags count too: nothing is put together from parts here.
    pub fn has(&self, tag: &ETag) -> bool {
        match &self.0 {
            None => false,
            Some(Tags::Any) => true,
            Some(Tags::Of(tags)) => tags.iter().any(|one| one.opaque == tag.opaque),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IfNoneMatch {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Tags::read(&parts.headers, &header::IF_NONE_MATCH).map(Self)
    }
}

impl IntoParams for IfNoneMatch {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let description =
            "ETags of answers that the client has: if one of them still stands, the answer is 304 without a body.";
        vec![header_parameter("If-None-Match", description, PATTERN, "\"1\"")]
    }
}

/// `If-Match` of a write: the only states that it may change.
#[derive(Debug)]
pub struct IfMatch(Option<Tags>);

impl IfMatch {
    /// The versions that may be changed; none, if it is any. A tag that is no version's, or is weak, is of no version: it
    /// adds none.
    pub fn versions(&self) -> Option<Vec<i64>> {
        match &self.0 {
            None | Some(Tags::Any) => None,
            Some(Tags::Of(tags)) => Some(tags.iter().filter_map(ETag::version).collect()),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Tags::read(&parts.headers, &header::IF_MATCH).map(Self)
    }
}

impl IntoParams for IfMatch {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let description = "ETags of the task's states that may be changed: if it is in none of them any more, nothing is done and the answer \
            is 412.";
        vec![header_parameter("If-Match", description, PATTERN, "\"1\"")]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tag(weak: bool, opaque: &str) -> ETag {
        ETag { weak, opaque: opaque.to_owned() }
    }

    #[test]
    fn tags_are_read() {
        let of = |tags: &[ETag]| Some(Tags::Of(tags.to_vec()));
        assert_eq!(Tags::parse(" * "), Some(Tags::Any));
        assert_eq!(Tags::parse("\"3\""), of(&[tag(false, "3")]));
        assert_eq!(Tags::parse("W/\"a,b\" ,, \"\""), of(&[tag(true, "a,b"), tag(false, "")]));
        for bad in ["", ",", "3", "\"3", "\"3\" \"4\"", "w/\"3\"", "*, \"3\"", "\"a b\"", "W/ \"3\""] {
            assert_eq!(Tags::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn every_value_of_the_header_counts() {
        let mut headers = HeaderMap::new();
        assert_eq!(Tags::read(&headers, &header::IF_MATCH).unwrap(), None);
        headers.append(header::IF_MATCH, HeaderValue::from_static("\"1\""));
        headers.append(header::IF_MATCH, HeaderValue::from_static("\"2\""));
        let tags = Tags::Of(vec![ETag::of_version(1), ETag::of_version(2)]);
        assert_eq!(Tags::read(&headers, &header::IF_MATCH).unwrap(), Some(tags));
        headers.append(header::IF_MATCH, HeaderValue::from_static("3"));
        assert!(matches!(Tags::read(&headers, &header::IF_MATCH), Err(ApiError::BadRequest(_))));
    }

    #[test]
    fn reads_compare_weakly_and_writes_strongly() {
        let has = |text: &str| IfNoneMatch(Tags::parse(text)).has(&ETag::of_version(3));
        assert!(has("\"3\"") && has("W/\"3\"") && has("\"1\", \"3\"") && has("*"));
        assert!(!has("\"4\"") && !has("\"03\""));
        let versions = |text: &str| IfMatch(Tags::parse(text)).versions();
        assert_eq!(versions("*"), None);
        assert_eq!(versions("\"3\", \"4\""), Some(vec![3, 4]));
        assert_eq!(versions("W/\"3\", \"+3\", \"03\", \"x\""), Some(vec![]));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(opaque in "[!#-~]{0,20}", weak: bool) {
            let tag = tag(weak, &opaque);
            let header = tag.to_header();
            prop_assert_eq!(Tags::parse(header.to_str().unwrap()), Some(Tags::Of(vec![tag])));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}") {
            let _ = Tags::parse(&text);
        }
    }
}
