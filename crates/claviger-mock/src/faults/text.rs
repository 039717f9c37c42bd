//! A fault as text, for the command line: `ENDPOINT:WHAT[:OPTION=VALUE]...`.

use std::str::FromStr;

use super::{Change, Encoding, Fault, FaultKind, MalformedBody, RetryAfter};
use crate::log::Endpoint;

/// The syntax of a fault, for `--help`.
pub(crate) const HELP: &str = "\
Faults are written ENDPOINT:WHAT[:OPTION=VALUE]...
  ENDPOINT   authorize, token, validate, revoke, openid-configuration, keys, userinfo, helix-users,
             helix-authorization-users, helix-subscriptions, helix-eventsub-subscriptions, connections,
             unknown (any other path)
  WHAT       status=503, or 503   answers with this status, from 200 to 599; nothing takes effect
             delay-ms=2000        takes effect at once and answers late
             close-before         closes the connection, and nothing takes effect
             close-after          takes effect, then closes the connection without an answer
             malformed=truncated  takes effect and answers garbage, truncated, html or other-shape
             encoding=gzip        takes effect and compresses the answer: gzip, deflate or raw-deflate
  OPTION     times=3              number of calls that fail; without it all do
             after=2              number of calls that pass first
             retry-after=5        seconds, with status=... only
             grant=refresh_token  only these calls of token

A fault may also be written as the JSON that POST /mock/faults takes. That changes single fields and
headers of an answer.

Examples:
  --fault token:status=503:times=3
  --fault validate:status=429:retry-after=5
  --fault token:close-after:grant=refresh_token:times=1 --fault token:delay-ms=300
  --fault '{\"endpoint\":\"token\",\"kind\":\"change\",\"set\":{\"expires_in\":0},\"remove\":[\"scope\"]}'";

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim_start().starts_with('{') {
            let fault: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
            fault.check()?;
            return Ok(fault);
        }
        let mut parts = text.split(':');
        let endpoint = endpoint(parts.next().unwrap_or_default())?;
        let what = parts.next().ok_or("say what happens, as in token:status=503 or token:close-after")?;
        let mut fault = Self::always(endpoint, kind(what)?);
        let mut seen = Vec::new();
        for part in parts {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            if seen.contains(&name) {
                return Err(format!("{name} is given twice"));
            }
            seen.push(name);
            fault.take_option(name, value)?;
        }
        fault.check()?;
        Ok(fault)
    }
}

impl Fault {
    fn take_option(&mut self, name: &str, value: &str) -> Result<(), String> {
        match (name, &mut self.kind) {
            ("times", _) => self.calls = Some(number(name, value, 1)?),
            ("after", _) => self.skip = number(name, value, 0)?,
            ("grant", _) if self.endpoint != Endpoint::Token => {
                return Err("grant is for the endpoint token only".to_owned());
            }
            ("grant", _) if value.is_empty() => {
                return Err("grant needs a grant type, as in grant=refresh_token".to_owned());
            }
            ("grant", _) => self.grant_type = Some(value.to_owned()),
            ("retry-after", FaultKind::Status { retry_after, .. }) => {
                *retry_after = Some(RetryAfter::Seconds(number(name, value, 0)?));
            }
            ("retry-after", _) => return Err("retry-after needs status=..., as in status=429".to_owned()),
            _ => {
                return Err(format!(
                    "{name:?} is not an option; the options are times, after, retry-after and grant"
                ));
            }
        }
        Ok(())
    }
}

fn endpoint(name: &str) -> Result<Endpoint, String> {
    let wanted = name.replace('-', "_");
    Endpoint::ALL.into_iter().find(|endpoint| endpoint.name() == wanted).ok_or_else(|| {
        let names = Endpoint::ALL.map(|endpoint| endpoint.name().replace('_', "-"));
        format!("{name:?} is not an endpoint; the endpoints are {}", names.join(", "))
    })
}

fn kind(what: &str) -> Result<FaultKind, String> {
    let (name, value) = what.split_once('=').unwrap_or((what, ""));
    Ok(match name {
        "status" => FaultKind::status(number(name, value, 200)?),
        "delay-ms" => FaultKind::Delay { delay_ms: number(name, value, 1)? },
        "close-before" if value.is_empty() => FaultKind::CloseBefore,
        "close-after" if value.is_empty() => FaultKind::CloseAfter,
        "malformed" => FaultKind::Malformed { body: malformed(value)? },
        "encoding" => FaultKind::Change(Change::encoding(encoding(value)?)),
        // The short form of a status.
        _ if name.parse::<u16>().is_ok() && value.is_empty() => {
            FaultKind::status(number("status", name, 200)?)
        }
        _ => {
            return Err(format!(
                "{what:?} is nothing that can happen; there are status=..., delay-ms=..., close-before, \
                 close-after, malformed=... and encoding=..."
            ));
        }
    })
}

fn malformed(name: &str) -> Result<MalformedBody, String> {
    Ok(match name {
        "garbage" => MalformedBody::Garbage,
        "truncated" => MalformedBody::Truncated,
        "html" => MalformedBody::Html,
        "other-shape" => MalformedBody::OtherShape,
        _ => return Err("malformed must be garbage, truncated, html or other-shape".to_owned()),
    })
}

fn encoding(name: &str) -> Result<Encoding, String> {
    Ok(match name {
        "gzip" => Encoding::Gzip,
        "deflate" => Encoding::Deflate,
        "raw-deflate" => Encoding::RawDeflate,
        _ => return Err("encoding must be gzip, deflate or raw-deflate".to_owned()),
    })
}

fn number<N: FromStr + PartialOrd + std::fmt::Display>(
    name: &str,
    text: &str,
    least: N,
) -> Result<N, String> {
    match text.parse() {
        Ok(number) if number >= least => Ok(number),
        _ => Err(format!("{name} needs a number from {least}, not {text:?}")),
    }
}
