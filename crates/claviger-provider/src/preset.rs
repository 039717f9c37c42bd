//! A provider that is known by name, before we are registered with it.

use std::time::Duration;

use claviger_core::ProviderHabits;
use url::Url;

use crate::{capabilities::WebhookEvents, client::Registration, provider::Provider};

/// A provider before we are registered with it.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// Its stable name: in configuration, rows and addresses.
    pub name: &'static str,
    /// What people call it.
    pub display_name: &'static str,
    /// What it does with refresh tokens, as far as that is known.
    pub habits: ProviderHabits,
    /// How often it wants tokens to be validated. None if it validates none.
    pub check_interval: Option<Duration>,
    /// How it sends word of its own accord, if it does.
    pub webhook_events: Option<&'static dyn WebhookEvents>,
    /// Builds the provider itself, or a mock of it at one address.
    pub(crate) build: fn(&Preset, Registration, Option<&Url>) -> Provider,
}

impl Preset {
    /// The provider itself.
    pub fn provider(&self, registration: Registration) -> Provider {
        (self.build)(self, registration, None)
    }

    /// A mock of the provider, with the sign-in pages and the API at one address. A path in the
    /// address is kept.
    pub fn mock_at(&self, base: &Url, registration: Registration) -> Provider {
        (self.build)(self, registration, Some(base))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use claviger_core::{ClientSecret, Schedule};

    use super::*;
    use crate::PRESETS;

    /// The shortest period that the gateway takes.
    const MINUTE: Duration = Duration::from_secs(60);

    fn registration() -> Registration {
        Registration::new("id", ClientSecret::new("canary"), "https://app.example/", vec![])
    }

    fn addresses(provider: &Provider) -> Vec<&Url> {
        let endpoints = &provider.client.endpoints;
        let mut all =
            vec![&endpoints.authorize, &endpoints.token, &endpoints.api, &provider.identity.endpoint];
        all.extend(provider.capabilities.validation.as_ref().map(|validation| &validation.check.endpoint));
        all.extend(provider.capabilities.revocation.as_ref().map(|revocation| &revocation.endpoint));
        all
    }

    #[test]
    fn every_preset_has_a_name_of_its_own_that_fits_into_an_address() {
        let names: BTreeSet<_> = PRESETS.iter().map(|preset| preset.name).collect();
        assert_eq!(names.len(), PRESETS.len());
        for preset in PRESETS {
            let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            assert!(!preset.name.is_empty() && preset.name.bytes().all(plain), "{preset:?}");
            assert!(!preset.display_name.is_empty(), "{preset:?}");
            assert_eq!(Preset::named(preset.name).unwrap().name, preset.name);
        }
        assert!(Preset::named("").is_none());
    }

    #[test]
    fn every_preset_builds_what_it_says() {
        for preset in PRESETS {
            let provider = preset.provider(registration());
            assert_eq!(provider.name.0, preset.name);
            assert_eq!(provider.display_name, preset.display_name);
            assert_eq!(provider.habits, preset.habits);
            let interval = provider.capabilities.validation.as_ref().map(|validation| validation.interval);
            assert_eq!(interval, preset.check_interval);
            assert!(interval.is_none_or(|interval| Schedule::of(interval).period > MINUTE), "{preset:?}");
            assert_eq!(
                provider.capabilities.webhook_events.is_some(),
                preset.webhook_events.is_some(),
                "{preset:?}"
            );
            assert!(provider.client.endpoints.api.path().ends_with('/'));
            assert!(addresses(&provider).iter().all(|url| url.scheme() == "https"), "{provider:?}");
            assert!(!format!("{provider:?}").contains("canary"));
        }
    }

    #[test]
    fn a_mock_lives_at_one_address() {
        let base = Url::parse("http://[::1]:1/a/b?c#d").unwrap();
        for preset in PRESETS {
            let mock = preset.mock_at(&base, registration());
            for url in addresses(&mock) {
                assert!(url.as_str().starts_with("http://[::1]:1/a/b/"), "{url}");
            }
            assert!(mock.issuer.is_none_or(|issuer| issuer.starts_with("http://[::1]:1/a/b/")));
        }
    }
}
