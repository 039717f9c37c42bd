//! What follows from settings: the values that the other parts of the gateway work with.

use std::time::Duration;

use claviger_core::{
    Lifetimes,
    policy::ProviderHabits,
    request::{
        Assurance,
        routes::{self, Admission, CrossOrigin, Faults},
    },
};
use claviger_engine::{AssertionSettings, Settings, Sweep};
use url::Url;

use super::{
    settings::{Api, Config, Provider, Route, RouteAssurance, Store, Webhook},
    values::SiteUrl,
};
use crate::rules::calls::AllowList;

/// The path where the gateway receives webhook events.
pub const CALLBACK: &str = "/auth/webhook";

impl Config {
    /// The settings of the engine.
    pub fn engine(&self) -> Settings {
        let session = &self.session;
        Settings {
            lifetimes: Lifetimes {
                idle: session.idle.0,
                absolute: session.absolute.0,
                proof: session.proof.0,
                max_unverified: session.max_unverified.0,
                refresh_spread: session.refresh_spread.0,
                ..Lifetimes::default()
            },
            custody: session.custody.0,
            devices_per_user: session.devices_per_user,
            carry_access_token: session.carry_access_token,
            store_wait: self.store.wait.0,
            cookie_when_cut_off: session.cookie_when_cut_off.0,
            refreshes_per_second: self.provider.refreshes_per_second,
            sweep: Sweep {
                period: self.sweep.period.0,
                validations_per_second: self.sweep.validations_per_second,
                keep_alive: self.sweep.keep_alive,
                connection_check_period: self.sweep.connection_check_period.0,
            },
            cascade: session.cascade.0,
            ..Settings::default()
        }
    }

    /// For whom assertions are signed, if any are.
    pub fn assertions(&self) -> Option<AssertionSettings> {
        let audience = self.assertion.audience.clone()?;
        Some(AssertionSettings { issuer: self.public_url.origin().to_string(), audience })
    }

    /// The address where the provider sends webhook events, if there is a webhook.
    pub fn callback(&self) -> Url {
        match &self.webhook.callback_url {
            Some(address) => address.url().clone(),
            None => {
                let mut address = self.public_url.url().clone();
                address.set_path(CALLBACK);
                address
            }
        }
    }
}

/// How long a load balancer has to notice that an instance is not ready.
const SHUTDOWN_NOTICE: Duration = Duration::from_secs(5);

impl Config {
    /// How long the gateway goes on serving while it says that it is not ready.
    pub fn shutdown_notice(&self) -> Duration {
        let usual = if self.store.is_shared() { SHUTDOWN_NOTICE } else { Duration::ZERO };
        self.limits.shutdown_notice.map_or(usual, |span| span.0)
    }
}

impl Store {
    /// Whether the sessions are in PostgreSQL.
    pub fn is_shared(&self) -> bool {
        self.url.is_some() || self.url_file.is_some()
    }

    /// Whether changes of other instances are received at an address of their own.
    pub fn listens_elsewhere(&self) -> bool {
        self.listen_url.is_some() || self.listen_url_file.is_some()
    }
}

impl Provider {
    /// How the provider is assumed to treat refresh tokens.
    pub fn habits(&self) -> ProviderHabits {
        let assumed = self.preset.0.habits;
        ProviderHabits {
            rotation: self.rotation.map_or(assumed.rotation, |word| word.0),
            replay_window: self.replay_window.map_or(assumed.replay_window, |span| span.0),
            reuse_kills_connection: self.reuse_kills_connection.unwrap_or(assumed.reuse_kills_connection),
            old_access_token_survives: self
                .old_access_token_survives
                .unwrap_or(assumed.old_access_token_survives),
        }
    }

    /// Where calls of the provider's API arrive.
    pub fn api_path(&self) -> String {
        format!("/api/{}", self.preset.0.name)
    }
}

impl Webhook {
    /// Whether the provider shall send webhook events.
    pub fn is_wanted(&self) -> bool {
        self.secret.is_some() || self.secret_file.is_some()
    }
}

impl Route {
    /// Its rule.
    pub fn rule(&self) -> routes::Route {
        let admission = match self.assurance.0 {
            RouteAssurance::None => Admission::Anyone,
            RouteAssurance::Optional => Admission::Optional,
            RouteAssurance::Cookie => Admission::Vouched(Assurance::Cookie),
            RouteAssurance::Session => Admission::Vouched(Assurance::Session),
            RouteAssurance::Provider => {
                let max_age = self.max_age.map_or(Duration::ZERO, |span| span.0);
                Admission::Vouched(Assurance::Provider { max_age })
            }
        };
        let faults = match self.tolerates_faults {
            Some(true) => Faults::Tolerated,
            Some(false) | None => Faults::Refused,
        };
        let origins = self.allowed_origins.iter().flatten();
        let cross_origin = CrossOrigin {
            allowed: origins.map(SiteUrl::origin).collect(),
            passes_preflights: self.passes_preflights == Some(true),
        };
        let methods = self.methods.clone().unwrap_or_default();
        routes::Route { path: self.path.clone(), methods, admission, faults, cross_origin }
    }
}

impl Api {
    /// The calls that pass.
    pub fn allow_list(&self) -> AllowList {
        AllowList::new(self.allow.iter().map(|allowed| (allowed.method.as_str(), allowed.path.as_str())))
    }
}
