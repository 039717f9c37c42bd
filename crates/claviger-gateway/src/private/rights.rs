//! What a credential may do.

use std::{fmt, str::FromStr};

/// Declares the rights. A right is added here and nowhere else.
macro_rules! rights {
    (
        $($(#[doc = $doc:literal])+ $right:ident = $word:literal;)+
        of a name:
        $($(#[doc = $of_doc:literal])+ $of:ident = $prefix:literal;)+
    ) => {
        /// What a credential may do.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Right {
            $($(#[doc = $doc])+ $right,)+
            $($(#[doc = $of_doc])+ $of(Name),)+
        }

        impl fmt::Display for Right {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$right => f.write_str($word),)+
                    $(Self::$of(name) => write!(f, concat!($prefix, ":{}"), name),)+
                }
            }
        }

        impl FromStr for Right {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text.split_once(':') {
                    $(None if text == $word => Ok(Self::$right),)+
                    $(Some(($prefix, name)) => Ok(Self::$of(name.parse()?)),)+
                    _ => Err(format!("there is no such right; the rights are {}", Self::WORDS.join(", "))),
                }
            }
        }

        impl Right {
            /// How each right is written.
            pub const WORDS: &'static [&'static str] = &[$($word,)+ $(concat!($prefix, ":NAME"),)+];
        }
    };
}

rights! {
    /// Ask who sent a request, at `/v1/check`.
    Check = "check";
    /// Read the metrics, at `/metrics`.
    Metrics = "metrics";
    /// Get the app's own token, at `/v1/app-token`.
    AppToken = "app-token";

    of a name:
    /// Work for users who are away, for this purpose. No address asks for it yet.
    Delegations = "delegations";
}

/// Maximum length of a name.
const NAME_BYTES: usize = 64;

/// The name of a credential, or that a right is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(String);

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
        if text.is_empty() || text.len() > NAME_BYTES || !text.bytes().all(plain) {
            return Err(format!(
                "a name has 1 to {NAME_BYTES} characters: small letters, digits, '-' and '_'"
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_is_read_as_it_is_written() {
        for word in Right::WORDS {
            let text = word.replace("NAME", "clips");
            assert_eq!(text.parse::<Right>().unwrap().to_string(), text);
        }
        for wrong in
            ["", "chek", "check:", "check:x", "delegations", "delegations:", "delegations:a:b", "Check"]
        {
            assert!(wrong.parse::<Right>().is_err(), "{wrong}");
        }
        assert!("all".parse::<Right>().unwrap_err().contains("check, metrics"));
    }
}
