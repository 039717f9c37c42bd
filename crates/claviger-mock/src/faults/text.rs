//! A fault as text, as the command line takes it: `ENDPOINT:WHAT[:OPTION=VALUE]...`.

use std::str::FromStr;

use super::{Fault, FaultKind, MalformedBody, RetryAfter};
use crate::log::Endpoint;

/// What the text of a fault looks like, for `--help`.
pub(crate) const HELP: &str = "\
Faults are written ENDPOINT:WHAT[:OPTION=VALUE]...
  ENDPOINT   authorize, token, validate, revoke, openid-configuration, keys, userinfo, helix-users,
             helix-authorization-users, helix-subscriptions, helix-eventsub-subscriptions, connections,
             unknown (any other path)
  WHAT       status=503, or 503   answers so, from 400 to 599, and nothing takes effect
             delay-ms=2000        takes effect at once and answers late
             close-before         closes the connection, and nothing takes effect
             close-after          takes effect, then closes the connection without an answer
             malformed=truncated  takes effect and answers garbage, truncated, html or other-shape
  OPTION     times=3              so many calls fail; without it all do
             after=2              so many calls pass first
             retry-after=5        seconds, with status=... only
             grant=refresh_token  only these calls of token

Examples:
  --fault token:status=503:times=3
  --fault validate:status=429:retry-after=5
  --fault token:close-after:grant=refresh_token:times=1 --fault token:delay-ms=300";

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
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
            _ => return Err(format!("{name:?} is no option; there are times, after, retry-after and grant")),
        }
        Ok(())
    }
}

fn endpoint(name: &str) -> Result<Endpoint, String> {
    let wanted = name.replace('-', "_");
    Endpoint::ALL.into_iter().find(|endpoint| endpoint.name() == wanted).ok_or_else(|| {
        let names = Endpoint::ALL.map(|endpoint| endpoint.name().replace('_', "-"));
        format!("{name:?} is no endpoint; there are {}", names.join(", "))
    })
}

fn kind(what: &str) -> Result<FaultKind, String> {
    let (name, value) = what.split_once('=').unwrap_or((what, ""));
    Ok(match name {
        "status" => FaultKind::status(number(name, value, 400)?),
        "delay-ms" => FaultKind::Delay { delay_ms: number(name, value, 1)? },
        "close-before" if value.is_empty() => FaultKind::CloseBefore,
        "close-after" if value.is_empty() => FaultKind::CloseAfter,
        "malformed" => FaultKind::Malformed { body: malformed(value)? },
        // The short form of a status.
        _ if name.parse::<u16>().is_ok() && value.is_empty() => {
            FaultKind::status(number("status", name, 400)?)
        }
        _ => {
            return Err(format!(
                "{what:?} is nothing that can happen; there are status=..., delay-ms=..., close-before, close-after \
                 and malformed=..."
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
        _ => return Err("malformed is one of garbage, truncated, html and other-shape".to_owned()),
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
