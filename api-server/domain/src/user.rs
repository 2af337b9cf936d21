//! An account, and what may be said about one.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use unicode_normalization::UnicodeNormalization;
use utoipa::ToSchema;

use crate::validation::{self, Form, Invalid};

/// The fewest characters in a password.
pub const MIN_PASSWORD: usize = 8;
/// The most characters in a password; more would only keep the hasher busy.
pub const MAX_PASSWORD: usize = 256;
/// The most characters in a name.
pub const MAX_NAME: usize = 100;

/// An account as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct User {
    /// The account's id.
    #[schema(minimum = 1, example = 7)]
    pub id: i64,
    /// As it was given.
    #[schema(example = "me@example.com")]
    pub email: String,
    /// What the user wants to be called.
    #[schema(required, max_length = 100, example = "Me")]
    pub name: Option<String>,
    /// When the account was made.
    pub created_at: Timestamp,
}

/// An e-mail address. Two that differ only in case are one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Email(String);

impl Email {
    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What it is compared by. Databases differ in what they know of case beyond ASCII, so it is folded here; and `é` is one letter or two,
    /// by where it was typed.
    pub fn key(&self) -> String {
        Self::key_of(&self.0)
    }

    /// The same of an e-mail that was accepted before.
    pub fn key_of(email: &str) -> String {
        email.trim().nfc().collect::<String>().to_lowercase()
    }

    /// Reads one.
    pub fn rule(value: Value) -> Result<Self, String> {
        let email = validation::string(value)?.trim().to_owned();
        if is_email(&email) { Ok(Self(email)) } else { Err("must be an e-mail address like me@example.com".to_owned()) }
    }
}

/// Whether mail could go there: the limits of RFC 5321 and what every mail server asks for. Only sending one would tell more.
fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else { return false };
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '@' | '<' | '>' | ',' | ';' | '"' | '\\');
    let label = |label: &str| !label.is_empty() && !label.starts_with('-') && !label.ends_with('-');
    text.len() <= 254
        && (1..=64).contains(&local.len())
        && !local.contains(odd)
        && !domain.contains(odd)
        && domain.split('.').all(label)
}

/// A request for an account.
#[derive(Debug, ToSchema)]
pub struct Registration {
    /// The e-mail to log in with. Two that differ only in case are one.
    #[schema(value_type = String, format = Email, max_length = 254, example = "me@example.com")]
    pub email: Email,
    /// The password.
    #[schema(format = Password, min_length = 8, max_length = 256, pattern = r"^[^\u0000]*$", example = "correct horse")]
    pub password: String,
    /// What the user wants to be called.
    #[schema(min_length = 1, max_length = 100, pattern = r"^[^\u0000]*$", example = "Me")]
    pub name: Option<String>,
}

impl Registration {
    /// Reads the body of `POST /api/auth/register`.
    pub fn from_form(mut form: Form) -> Result<Self, Invalid> {
        let email = form.required("email", Email::rule);
        let password = form.required("password", password);
        let name = form.nullable("name", |value| validation::text(value, 1, MAX_NAME)).value();
        form.finish(email.zip(password).map(|(email, password)| Self { email, password, name }))
    }
}

/// A request for another password.
#[derive(Debug, ToSchema)]
pub struct PasswordChange {
    /// The one that is to go.
    #[schema(format = Password, pattern = r"^[^\u0000]*$", example = "correct horse")]
    pub current_password: String,
    /// The one that is to come.
    #[schema(format = Password, min_length = 8, max_length = 256, pattern = r"^[^\u0000]*$", example = "battery staple")]
    pub new_password: String,
}

impl PasswordChange {
    /// Reads the body of `POST /api/auth/password`.
    pub fn from_form(mut form: Form) -> Result<Self, Invalid> {
        let current = form.required("current_password", validation::string);
        let new = form.required("new_password", password);
        let both = current.zip(new);
        form.finish(both.map(|(current_password, new_password)| Self { current_password, new_password }))
    }
}

/// A new password, as it is hashed.
fn password(value: Value) -> Result<String, String> {
    validation::text(value, MIN_PASSWORD, MAX_PASSWORD).map(|password| normal(&password))
}

/// A password as RFC 8265 (`OpaqueString`) compares it: however a keyboard composes its letters, and whichever blank it has.
fn normal(password: &str) -> String {
    let is_blank =
        |c: char| matches!(c, '\u{A0}' | '\u{1680}' | '\u{2000}'..='\u{200A}' | '\u{202F}' | '\u{205F}' | '\u{3000}');
    password.chars().map(|c| if is_blank(c) { ' ' } else { c }).nfc().collect()
}

/// Both, where they differ.
fn either(one: String, other: String) -> Vec<String> {
    if one == other { vec![one] } else { vec![one, other] }
}

/// A request for a session.
#[derive(Debug, ToSchema)]
pub struct Login {
    /// The account's e-mail.
    #[schema(pattern = r"^[^\u0000]*$", example = "me@example.com")]
    pub email: String,
    /// Its password, perhaps.
    #[schema(format = Password, pattern = r"^[^\u0000]*$", example = "correct horse")]
    pub password: String,
}

impl Login {
    /// Reads the body of `POST /api/auth/login`. What can't be an e-mail or a password is just wrong: it is no account's.
    pub fn from_form(mut form: Form) -> Result<Self, Invalid> {
        let email = form.required("email", validation::string);
        let password = form.required("password", validation::string);
        form.finish(email.zip(password).map(|(email, password)| Self { email, password }))
    }

    /// What the e-mail is compared by.
    pub fn email_key(&self) -> String {
        Email::key_of(&self.email)
    }

    /// The same, and what accounts were compared by that were made by releases before.
    pub fn email_keys(&self) -> Vec<String> {
        either(self.email_key(), self.email.trim().to_lowercase())
    }

    /// What may have been hashed: the password, and, by releases before, just what was typed.
    pub fn passwords(self) -> Vec<String> {
        either(normal(&self.password), self.password)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn emails() {
        for good in ["me@example.com", "a.b+c@sub.example.co", "ä@exämple.de", "me@localhost"] {
            assert!(is_email(good), "{good}");
        }
        let long = format!("{}@example.com", "a".repeat(65));
        for bad in
            ["", "me", "@", "me@", "@example.com", "a b@c.d", "a@b@c", "a@b..c", "a@-b.c", "a@b\n.c", "<a@b.c>", &long]
        {
            assert!(!is_email(bad), "{bad}");
        }
    }

    #[test]
    fn emails_compare_without_case() {
        assert_eq!(Email("Me@Example.COM".to_owned()).key(), "me@example.com");
        let login = Login { email: " ÄB@x.de ".to_owned(), password: String::new() };
        assert_eq!(login.email_keys(), [Email("äb@X.de".to_owned()).key()]);
    }

    #[test]
    fn what_looks_alike_is_alike() {
        let (composed, decomposed) = ("caf\u{E9}\u{A0}au lait", "cafe\u{301} au lait");
        assert_eq!(normal(composed), normal(decomposed));
        let login = |email: &str, password: &str| Login { email: email.to_owned(), password: password.to_owned() };
        let typed = login("Rene\u{301}@x.de", decomposed);
        assert_eq!(typed.email_keys(), ["ren\u{E9}@x.de", "rene\u{301}@x.de"], "and as releases before had it");
        assert_eq!(typed.passwords(), ["caf\u{E9} au lait", decomposed]);
        assert_eq!(login("me@x.de", "plain").passwords(), ["plain"]);
    }

    #[test]
    fn a_registration_tells_all_its_faults() {
        let form = Form::body(json!({"email": "nobody", "password": "short", "name": ""})).unwrap();
        let Err(Invalid(errors)) = Registration::from_form(form) else { panic!("accepted") };
        assert_eq!(errors.iter().map(|error| &*error.field).collect::<Vec<_>>(), ["email", "password", "name"]);
    }

    proptest! {
        #[test]
        fn an_accepted_email_has_one_at(text in ".{0,80}") {
            if is_email(&text) {
                prop_assert_eq!(text.matches('@').count(), 1);
                prop_assert!(!text.contains(char::is_whitespace));
            }
        }
    }
}
