//! Tokens, codes and authorizations, and what happens to them.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasherDefault, DefaultHasher};

use crate::config::LiveTokenLimit;
use crate::limits;

/// A client and a user; app tokens have no user.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Pair {
    pub(crate) client_id: String,
    pub(crate) user_id: Option<String>,
}

impl Pair {
    pub(crate) fn user(client_id: &str, user_id: &str) -> Self {
        Self { client_id: client_id.to_owned(), user_id: Some(user_id.to_owned()) }
    }

    pub(crate) fn app(client_id: &str) -> Self {
        Self { client_id: client_id.to_owned(), user_id: None }
    }

    fn concerns(&self, user_id: &str) -> bool {
        self.user_id.as_deref() == Some(user_id)
    }
}

/// The OpenID Connect parts of an authorization (Twitch docs: OIDC authorization code grant flow).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OidcRequest {
    pub(crate) nonce: Option<String>,
    pub(crate) id_token_claims: BTreeSet<String>,
    pub(crate) userinfo_claims: BTreeSet<String>,
}

/// Data that all tokens of one sign-in share.
#[derive(Clone)]
pub(crate) struct SignIn {
    pub(crate) pair: Pair,
    pub(crate) scopes: Vec<String>,
    pub(crate) oidc: OidcRequest,
    /// The number of the sign-in, which all tokens of one code share.
    pub(crate) family: u64,
}

/// A code waiting to be exchanged.
pub(crate) struct Code {
    pub(crate) sign_in: SignIn,
    pub(crate) redirect_uri: String,
    pub(crate) challenge: Option<String>,
    pub(crate) expires_at_ms: i64,
}

pub(crate) struct AccessToken {
    pub(crate) sign_in: SignIn,
    /// Reads do not know it earlier.
    pub(crate) known_from_ms: i64,
    pub(crate) expires_at_ms: i64,
}

pub(crate) struct RefreshToken {
    pub(crate) sign_in: SignIn,
    /// A newer one has replaced it.
    pub(crate) spent: bool,
    pub(crate) live: bool,
    remembered: bool,
}

/// The live access tokens of one client and user, oldest first, and their live refresh tokens.
#[derive(Default)]
struct PairTokens {
    access: VecDeque<String>,
    refresh: BTreeSet<String>,
}

/// A user's connection with an app.
struct Authorization {
    scopes: BTreeSet<String>,
    /// Sign-ins with a greater number belong to this connection, and not to an earlier one.
    after_family: u64,
}

/// A map for each request's lookups. It hashes without a random seed, and listings of it are sorted
/// first, so the same calls give the same answers.
type Lookup<K, V> = HashMap<K, V, BuildHasherDefault<DefaultHasher>>;

/// All tokens, codes and authorizations.
#[derive(Default)]
pub(crate) struct State {
    codes: BTreeMap<String, Code>,
    code_order: VecDeque<String>,
    access: Lookup<String, AccessToken>,
    refresh: Lookup<String, RefreshToken>,
    /// Spent or dead refresh tokens, oldest first, remembered to detect reuse.
    graveyard: VecDeque<String>,
    pair_tokens: Lookup<Pair, PairTokens>,
    authorizations: Lookup<Pair, Authorization>,
    families: u64,
}

impl State {
    /// Starts a sign-in and returns the number that its tokens share.
    pub(crate) fn new_family(&mut self) -> u64 {
        self.families += 1;
        self.families
    }

    /// The user authorizes the client for these scopes, in addition to earlier ones.
    pub(crate) fn authorize(&mut self, pair: &Pair, scopes: &[String]) {
        let after_family = self.families;
        let fresh = || Authorization { scopes: BTreeSet::new(), after_family };
        self.authorizations.entry(pair.clone()).or_insert_with(fresh).scopes.extend(scopes.iter().cloned());
    }

    /// The scopes that the user has authorized; `None` if the app is not connected.
    pub(crate) fn authorized_scopes(&self, pair: &Pair) -> Option<&BTreeSet<String>> {
        self.authorizations.get(pair).map(|authorization| &authorization.scopes)
    }

    /// Whether the connection of a sign-in still exists.
    pub(crate) fn is_connected(&self, sign_in: &SignIn) -> bool {
        let connection = self.authorizations.get(&sign_in.pair);
        connection.is_some_and(|connection| sign_in.family > connection.after_family)
    }

    /// All connections: client, user, scopes.
    pub(crate) fn authorizations(&self) -> impl Iterator<Item = (&Pair, &BTreeSet<String>)> {
        let all: BTreeMap<_, _> = self.authorizations.iter().collect();
        all.into_iter().map(|(pair, authorization)| (pair, &authorization.scopes))
    }

    pub(crate) fn add_code(&mut self, value: String, code: Code, now_ms: i64) {
        while let Some(oldest) = self.code_order.front() {
            let stale = self.codes.get(oldest).is_none_or(|code| code.expires_at_ms <= now_ms);
            if !stale && self.code_order.len() < limits::CODES {
                break;
            }
            self.codes.remove(oldest);
            self.code_order.pop_front();
        }
        self.code_order.push_back(value.clone());
        self.codes.insert(value, code);
    }

    pub(crate) fn code(&self, value: &str) -> Option<&Code> {
        self.codes.get(value)
    }

    /// Uses up a code.
    pub(crate) fn take_code(&mut self, value: &str) -> Option<Code> {
        self.codes.remove(value)
    }

    /// A live access token.
    pub(crate) fn access(&self, token: &str, now_ms: i64) -> Option<&AccessToken> {
        self.access.get(token).filter(|access| access.expires_at_ms > now_ms)
    }

    /// A refresh token, live or remembered.
    pub(crate) fn refresh(&self, token: &str) -> Option<&RefreshToken> {
        self.refresh.get(token)
    }

    /// Whether one more access token would exceed a limit that refuses. The tokens of
    /// `dying_family` do not count.
    pub(crate) fn is_full(
        &mut self,
        pair: &Pair,
        limit: LiveTokenLimit,
        dying_family: Option<u64>,
        now_ms: i64,
    ) -> bool {
        let LiveTokenLimit::Refuses(most) = limit else {
            return false;
        };
        self.drop_expired(pair, now_ms);
        let Some(pair_tokens) = self.pair_tokens.get(pair) else {
            return most == 0;
        };
        let stays = |token: &&String| {
            self.access.get(*token).is_some_and(|access| Some(access.sign_in.family) != dying_family)
        };
        pair_tokens.access.iter().filter(stays).count() >= most as usize
    }

    /// Adds an access token. If the limit kills the oldest, that one dies.
    pub(crate) fn add_access(
        &mut self,
        value: String,
        token: AccessToken,
        limit: LiveTokenLimit,
        now_ms: i64,
    ) {
        let pair = token.sign_in.pair.clone();
        self.drop_expired(&pair, now_ms);
        let pair_tokens = self.pair_tokens.entry(pair).or_default();
        if let LiveTokenLimit::KillsOldest(most) = limit {
            while pair_tokens.access.len() >= most.max(1) as usize {
                let oldest = pair_tokens.access.pop_front().unwrap_or_default();
                self.access.remove(&oldest);
            }
        }
        pair_tokens.access.push_back(value.clone());
        self.access.insert(value, token);
    }

    pub(crate) fn add_refresh(&mut self, value: String, sign_in: SignIn) {
        self.pair_tokens.entry(sign_in.pair.clone()).or_default().refresh.insert(value.clone());
        self.refresh.insert(value, RefreshToken { sign_in, spent: false, live: true, remembered: false });
    }

    /// Marks a refresh token as replaced by a newer one; `dies` says whether it stops working.
    pub(crate) fn spend_refresh(&mut self, value: &str, dies: bool) {
        if let Some(token) = self.refresh.get_mut(value) {
            token.spent = true;
        }
        if dies { self.kill_refresh(value) } else { self.remember(value) }
    }

    fn kill_refresh(&mut self, value: &str) {
        let Some(token) = self.refresh.get_mut(value) else {
            return;
        };
        token.live = false;
        if let Some(pair_tokens) = self.pair_tokens.get_mut(&token.sign_in.pair) {
            pair_tokens.refresh.remove(value);
        }
        self.remember(value);
    }

    fn remember(&mut self, value: &str) {
        let Some(token) = self.refresh.get_mut(value).filter(|token| !token.remembered) else {
            return;
        };
        token.remembered = true;
        self.graveyard.push_back(value.to_owned());
        if self.graveyard.len() > limits::SPENT_REFRESH_TOKENS {
            let oldest = self.graveyard.pop_front().unwrap_or_default();
            if let Some(forgotten) = self.refresh.remove(&oldest)
                && let Some(pair_tokens) = self.pair_tokens.get_mut(&forgotten.sign_in.pair)
            {
                pair_tokens.refresh.remove(&oldest);
            }
        }
    }

    /// Kills one access token; its refresh token still works (twitchdev/issues#943).
    pub(crate) fn kill_access(&mut self, value: &str) -> bool {
        let Some(token) = self.access.remove(value) else {
            return false;
        };
        if let Some(pair_tokens) = self.pair_tokens.get_mut(&token.sign_in.pair) {
            pair_tokens.access.retain(|held| held != value);
        }
        true
    }

    /// Kills the access tokens of one sign-in.
    pub(crate) fn kill_family_access(&mut self, pair: &Pair, family: u64) {
        let Some(pair_tokens) = self.pair_tokens.get_mut(pair) else {
            return;
        };
        let access = &mut self.access;
        pair_tokens.access.retain(|token| {
            let dies = access.get(token).is_none_or(|held| held.sign_in.family == family);
            if dies {
                access.remove(token);
            }
            !dies
        });
    }

    /// Kills a token of either kind, and returns whether it was live.
    pub(crate) fn kill(&mut self, value: &str) -> bool {
        let refreshes = self.refresh.get(value).is_some_and(|token| token.live);
        self.kill_refresh(value);
        self.kill_access(value) || refreshes
    }

    /// Ends a connection: the authorization, its waiting codes and all its tokens (Twitch docs:
    /// authentication).
    pub(crate) fn disconnect(&mut self, pair: &Pair) -> bool {
        self.kill_tokens(pair);
        self.codes.retain(|_, code| code.sign_in.pair != *pair);
        self.authorizations.remove(pair).is_some()
    }

    /// Kills all tokens of a client and user; the authorization stays.
    pub(crate) fn kill_tokens(&mut self, pair: &Pair) -> usize {
        let Some(pair_tokens) = self.pair_tokens.remove(pair) else {
            return 0;
        };
        let killed = pair_tokens.access.len() + pair_tokens.refresh.len();
        for token in &pair_tokens.access {
            self.access.remove(token);
        }
        for token in &pair_tokens.refresh {
            self.kill_refresh(token);
        }
        killed
    }

    /// Ends all access tokens of a user; refresh tokens still work.
    pub(crate) fn expire_access(&mut self, user_id: &str) -> usize {
        let mut expired = 0;
        for (_, pair_tokens) in self.pair_tokens.iter_mut().filter(|(pair, _)| pair.concerns(user_id)) {
            for token in pair_tokens.access.drain(..) {
                expired += usize::from(self.access.remove(&token).is_some());
            }
        }
        expired
    }

    /// The pairs that include a user.
    pub(crate) fn pairs_of(&self, user_id: &str) -> Vec<Pair> {
        let holders = self.pair_tokens.keys().chain(self.authorizations.keys());
        let pairs: BTreeSet<&Pair> = holders.filter(|pair| pair.concerns(user_id)).collect();
        pairs.into_iter().cloned().collect()
    }

    /// All live access tokens.
    pub(crate) fn live_access(&self, now_ms: i64) -> impl Iterator<Item = (&String, &AccessToken)> {
        let live = self.access.iter().filter(move |(_, token)| token.expires_at_ms > now_ms);
        live.collect::<BTreeMap<_, _>>().into_iter()
    }

    /// All live refresh tokens.
    pub(crate) fn live_refresh(&self) -> impl Iterator<Item = (&String, &RefreshToken)> {
        self.refresh.iter().filter(|(_, token)| token.live).collect::<BTreeMap<_, _>>().into_iter()
    }

    fn drop_expired(&mut self, pair: &Pair, now_ms: i64) {
        let Some(pair_tokens) = self.pair_tokens.get_mut(pair) else {
            return;
        };
        let access = &mut self.access;
        pair_tokens.access.retain(|token| {
            let lives = access.get(token).is_some_and(|held| held.expires_at_ms > now_ms);
            if !lives {
                access.remove(token);
            }
            lives
        });
    }
}
