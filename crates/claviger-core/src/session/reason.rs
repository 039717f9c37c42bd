//! Why sessions end.

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// The user signed out on this device.
    SignedOut,
    /// The user ended this session from another device.
    SignedOutFromAnotherDevice,
    /// The user signed out everywhere.
    SignedOutEverywhere,
    /// The same browser signed in again.
    ReplacedBySignIn,
    /// The user disconnected the app at the provider.
    DisconnectedAtProvider,
    /// The provider says that the refresh token is dead.
    RefreshTokenRejected,
    /// The provider says that the token is another user's, or no user's.
    TokenOfAnotherSubject,
    /// Nobody used the session for too long.
    Idle,
    /// The session reached its greatest age.
    TooOld,
    /// The user signed in on more devices than are allowed, and this one was used least recently.
    DeviceLimit,
    /// An administrator ended it.
    Administrator,
    /// The provider asked for it.
    ProviderLogout,
    /// The account at the provider is gone.
    AccountGone,
}

impl EndReason {
    /// Every reason with its stable name, as stores and JSON write it.
    pub const NAMES: [(Self, &'static str); 13] = [
        (Self::SignedOut, "signed_out"),
        (Self::SignedOutFromAnotherDevice, "signed_out_from_another_device"),
        (Self::SignedOutEverywhere, "signed_out_everywhere"),
        (Self::ReplacedBySignIn, "replaced_by_sign_in"),
        (Self::DisconnectedAtProvider, "disconnected_at_provider"),
        (Self::RefreshTokenRejected, "refresh_token_rejected"),
        (Self::TokenOfAnotherSubject, "token_of_another_subject"),
        (Self::Idle, "idle"),
        (Self::TooOld, "too_old"),
        (Self::DeviceLimit, "device_limit"),
        (Self::Administrator, "administrator"),
        (Self::ProviderLogout, "provider_logout"),
        (Self::AccountGone, "account_gone"),
    ];

    /// The stable name.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(reason, _)| *reason == self).map_or("unknown", |(_, name)| name)
    }

    /// The reason with this stable name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(reason, _)| *reason)
    }

    /// Whether it concerns every device of the user. All others end one row only (invariant BLAST).
    pub fn user_wide(self) -> bool {
        matches!(
            self,
            Self::SignedOutEverywhere
                | Self::DisconnectedAtProvider
                | Self::ProviderLogout
                | Self::AccountGone
        )
    }
}
