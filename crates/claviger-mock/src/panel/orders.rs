//! The orders that the forms of the page give.

use std::collections::BTreeMap;

use http::StatusCode;
use serde_json::Value;

use crate::accounts::UserPatch;
use crate::config::{Client, User};
use crate::eventsub::{Notice, ReleaseOrder, RevocationReason, SubscriptionType};
use crate::exchange::{self, Answer, Call, Params, Refusal};
use crate::faults::{Change, Encoding, Fault, FaultKind, MalformedBody};
use crate::limits;
use crate::log::Endpoint;
use crate::mock::MockTwitch;
use crate::page::Said;

use super::settings;

/// What an order did, and the section to show then.
type Done = (String, &'static str);

impl MockTwitch {
    /// Carries out an order, and leads back to the page.
    pub(crate) fn order(&mut self, call: &Call<'_>) -> Answer {
        match self.carry_out(call) {
            Ok((words, section)) => {
                self.said = Some(words);
                let back = exchange::redirect(StatusCode::SEE_OTHER, &format!("/#{section}"));
                back.unwrap_or_else(exchange::not_found)
            }
            Err(refusal) => {
                let said = Said { words: refusal.message().to_owned(), is_error: true };
                self.page(&self.base_url(call), Some(said)).answer()
            }
        }
    }

    fn carry_out(&mut self, call: &Call<'_>) -> Result<Done, Refusal> {
        let params = &call.params;
        match params.get("do").unwrap_or_default() {
            "add-user" => self.add_user_order(params),
            "rename" => {
                let patch = UserPatch::rename(filled(params, "login")?, filled(params, "display_name")?);
                self.patch_order(params, &patch)
            }
            "suspend" => {
                let patch = UserPatch::suspend(params.get("suspended") == Some("true"));
                self.patch_order(params, &patch)
            }
            "disconnect" | "expire" | "kill-tokens" | "delete-user" => self.user_page_order(params),
            "add-fault" => self.add_fault_order(params),
            "ready-fault" => {
                let fault: Fault = filled(params, "fault")?.parse().map_err(Refusal::bad_request)?;
                self.take_faults(vec![fault])
            }
            "remove-fault" => {
                let index =
                    filled(params, "index")?.parse().map_err(|_| Refusal::bad_request("no such fault"))?;
                let words =
                    if self.remove_fault(index) { "The fault is removed." } else { "The fault had ended." };
                done(words, "faults")
            }
            "clear-faults" => {
                self.clear_faults();
                done("All faults are removed.", "faults")
            }
            "kill-token" => self.kill_token_order(call),
            "notify" => self.notify_page_order(params),
            "release" => {
                let released = self.release_deliveries(ReleaseOrder::OldestFirst);
                done(format!("{released} held messages were released."), "deliveries")
            }
            "revoke-subscription" => self.revoke_subscription_order(params),
            "settings" => {
                self.change_settings(settings::patch(params)?)?;
                done("The settings are changed.", "settings")
            }
            "add-app" => self.add_app_order(params),
            "clear-log" => {
                self.clear_log();
                done("The list of requests is cleared.", "requests")
            }
            "reset" => {
                self.reset();
                done("Everything is as at the start.", "apps")
            }
            _ => Err(Refusal::bad_request("Unknown order")),
        }
    }

    fn add_user_order(&mut self, params: &Params) -> Result<Done, Refusal> {
        let mut user = User::new(filled(params, "id")?, filled(params, "login")?);
        if let Some(name) = params.filled("display_name") {
            user = user.display_name(name);
        }
        user.check().map_err(Refusal::bad_request)?;
        if self.users.len() >= limits::USERS {
            return Err(Refusal::bad_request("too many users"));
        }
        let words = format!("{} can sign in.", user.display_name);
        self.add_user(user);
        done(words, "users")
    }

    fn patch_order(&mut self, params: &Params, patch: &UserPatch) -> Result<Done, Refusal> {
        let user = self.patch_user(filled(params, "user")?, patch).map_err(Refusal::bad_request)?;
        let words = match patch.suspended {
            Some(true) => format!("{} is suspended, and all tokens are dead.", user.display_name),
            Some(false) => format!("{} can sign in again.", user.display_name),
            None => format!("The user is called {} now.", user.display_name),
        };
        done(words, "users")
    }

    fn user_page_order(&mut self, params: &Params) -> Result<Done, Refusal> {
        let user_id = filled(params, "user")?;
        let user = self.users.get(user_id).ok_or_else(|| Refusal::bad_request("no such user"))?;
        let name = user.display_name.clone();
        let words = match params.get("do").unwrap_or_default() {
            "disconnect" => {
                let client_ids: Vec<String> = self.clients.keys().cloned().collect();
                let ended = client_ids.iter().filter(|id| self.disconnect(user_id, id)).count();
                format!("{name} is disconnected from {ended} apps.")
            }
            "expire" => {
                format!("{} access tokens of {name} are expired.", self.expire_access_tokens(user_id))
            }
            "kill-tokens" => format!("{} tokens of {name} are dead.", self.kill_tokens(user_id)),
            _ => {
                self.delete_user(user_id);
                format!("The account of {name} is deleted.")
            }
        };
        done(words, "users")
    }

    fn add_fault_order(&mut self, params: &Params) -> Result<Done, Refusal> {
        let endpoint = filled(params, "endpoint")?;
        let endpoint = Endpoint::ALL.into_iter().find(|known| known.name() == endpoint);
        let endpoint = endpoint.ok_or_else(|| Refusal::bad_request("Unknown address"))?;
        let grant_type = params.filled("grant_type").filter(|_| endpoint == Endpoint::Token);
        let base = Fault {
            endpoint,
            grant_type: grant_type.map(str::to_owned),
            skip: number(params, "skip")?.unwrap_or(0),
            calls: number(params, "calls")?,
            kind: FaultKind::CloseBefore,
        };
        let kinds = fault_kinds(params)?;
        self.take_faults(kinds.into_iter().map(|kind| Fault { kind, ..base.clone() }).collect())
    }

    fn take_faults(&mut self, faults: Vec<Fault>) -> Result<Done, Refusal> {
        if faults.is_empty() {
            return Err(Refusal::bad_request(
                "Say what happens: a status, a change, a delay or a closed connection",
            ));
        }
        faults.iter().try_for_each(Fault::check).map_err(Refusal::bad_request)?;
        faults.into_iter().for_each(|fault| self.add_fault(fault));
        done("The fault waits for the next calls.", "faults")
    }

    fn kill_token_order(&mut self, call: &Call<'_>) -> Result<Done, Refusal> {
        let fingerprint = filled(&call.params, "fingerprint")?;
        let killed = self.token_named(fingerprint, call.now_ms).is_some_and(|token| self.kill_token(&token));
        let words = if killed { "The token is dead." } else { "The token was dead already." };
        done(words, "tokens")
    }

    fn notify_page_order(&mut self, params: &Params) -> Result<Done, Refusal> {
        let kind = filled(params, "type")?;
        let kind = SubscriptionType::ALL.into_iter().find(|known| known.name() == kind);
        let kind = kind.ok_or_else(|| Refusal::bad_request("Unknown type"))?;
        let notice = Notice::new(kind, filled(params, "user")?);
        notice.check().map_err(Refusal::bad_request)?;
        let sent = self.notify(&notice).len();
        done(format!("{sent} subscriptions get the message."), "webhooks")
    }

    fn revoke_subscription_order(&mut self, params: &Params) -> Result<Done, Refusal> {
        let reason = filled(params, "reason")?;
        let reason = RevocationReason::ALL.into_iter().find(|known| known.status().name() == reason);
        let reason = reason.ok_or_else(|| Refusal::bad_request("Unknown reason"))?;
        let revoked = self.revoke_subscription(filled(params, "id")?, reason);
        let words = if revoked { "The subscription is revoked." } else { "The subscription is not enabled." };
        done(words, "webhooks")
    }

    fn add_app_order(&mut self, params: &Params) -> Result<Done, Refusal> {
        let client_id = self.mint.code();
        let secret = self.mint.client_secret();
        let mut client = Client::new(&client_id, &secret).name(filled(params, "name")?);
        client.redirect_uris = lines(params, "redirect_uris").map(str::to_owned).collect();
        self.take_client(client)?;
        done(format!("The app is registered. Client id {client_id}, client secret {secret}"), "apps")
    }

    /// Registers a client from outside.
    pub(crate) fn take_client(&mut self, client: Client) -> Result<(), Refusal> {
        client.check().map_err(Refusal::bad_request)?;
        if self.clients.len() >= limits::CLIENTS {
            return Err(Refusal::bad_request("too many clients"));
        }
        self.add_client(client);
        Ok(())
    }
}

/// What the form for faults asks for: at most one thing that happens, a change and a delay.
fn fault_kinds(params: &Params) -> Result<Vec<FaultKind>, Refusal> {
    let malformed = |body| Some(FaultKind::Malformed { body });
    let status = number::<u16>(params, "status")?;
    let happens = match params.get("what").unwrap_or_default() {
        "status" => Some(FaultKind::Status {
            status: status.unwrap_or(503),
            body: params.get("body").unwrap_or_default().to_owned(),
            retry_after: None,
        }),
        "close_before" => Some(FaultKind::CloseBefore),
        "close_after" => Some(FaultKind::CloseAfter),
        "garbage" => malformed(MalformedBody::Garbage),
        "truncated" => malformed(MalformedBody::Truncated),
        "html" => malformed(MalformedBody::Html),
        "other_shape" => malformed(MalformedBody::OtherShape),
        _ => None,
    };
    let change = Change {
        status: status.filter(|_| !matches!(happens, Some(FaultKind::Status { .. }))),
        set: lines(params, "set").map(read_field).collect::<Result<_, _>>()?,
        remove: params.get("remove").unwrap_or_default().split_whitespace().map(str::to_owned).collect(),
        headers: lines(params, "headers").map(read_header).collect::<Result<BTreeMap<_, _>, _>>()?,
        byte_order_mark: params.get("byte_order_mark") == Some("true"),
        encoding: match params.get("encoding") {
            Some("gzip") => Some(Encoding::Gzip),
            Some("deflate") => Some(Encoding::Deflate),
            Some("raw_deflate") => Some(Encoding::RawDeflate),
            _ => None,
        },
    };
    let change = (change != Change::default()).then_some(FaultKind::Change(change));
    let delay = number(params, "delay_ms")?.map(|delay_ms| FaultKind::Delay { delay_ms });
    Ok([happens, change, delay].into_iter().flatten().collect())
}

/// Reads `name = value`, where a value that is no JSON is a string.
fn read_field(line: &str) -> Result<(String, Value), Refusal> {
    let (name, value) = line
        .split_once('=')
        .ok_or_else(|| Refusal::bad_request(format!("{line:?} is not written as name = value")))?;
    let value = value.trim();
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
    Ok((name.trim().to_owned(), value))
}

/// Reads `Name: value`.
fn read_header(line: &str) -> Result<(String, Option<String>), Refusal> {
    let (name, value) = line
        .split_once(':')
        .ok_or_else(|| Refusal::bad_request(format!("{line:?} is not written as Name: value")))?;
    let value = value.trim();
    Ok((name.trim().to_owned(), (!value.is_empty()).then(|| value.to_owned())))
}

fn lines<'a>(params: &'a Params, name: &str) -> impl Iterator<Item = &'a str> {
    params.get(name).unwrap_or_default().lines().map(str::trim).filter(|line| !line.is_empty())
}

fn filled<'a>(params: &'a Params, name: &str) -> Result<&'a str, Refusal> {
    let value = params.get(name).map(str::trim).filter(|value| !value.is_empty());
    value.ok_or_else(|| Refusal::bad_request(format!("Please fill in {}", name.replace('_', " "))))
}

fn number<N: std::str::FromStr>(params: &Params, name: &str) -> Result<Option<N>, Refusal> {
    let Some(text) = params.get(name).map(str::trim).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let number =
        text.parse().map_err(|_| Refusal::bad_request(format!("{name}: {text:?} is not such a number")))?;
    Ok(Some(number))
}

fn done(words: impl Into<String>, section: &'static str) -> Result<Done, Refusal> {
    Ok((words.into(), section))
}
