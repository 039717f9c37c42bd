//! A provider's handling of refresh tokens. Tokens are numbers, starting at 0.

/// The kinds of providers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A token is good once. For this many ticks one more use returns the same answer. Any other
    /// use fails, or kills the whole connection.
    OneTime { window_ticks: u8, kills: bool },
    /// A new token comes, and the old one stays good.
    Rotates,
    /// The same token stays good.
    Reusable,
}

/// Maximum number of tokens of a device.
pub(crate) const TOKENS: usize = 6;

/// The provider's state of one device.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Grant {
    /// The refresh tokens that it accepts. A new authorization adds one.
    good: [bool; TOKENS],
    /// The pair that a spent token was exchanged for, and when, while a replay is allowed.
    spent: [Option<(u8, u8)>; TOKENS],
    /// For each token, whether a refresh with it may have killed its access token.
    refreshed: [bool; TOKENS],
    /// Number of pairs issued after the first.
    pub(crate) issued: u8,
}

/// The result of a refresh.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Bought {
    Pair(u8),
    /// It is dead.
    Nothing,
    /// It is dead, and so is everything else.
    Harm,
}

impl Grant {
    pub(crate) fn new() -> Self {
        let mut good = [false; TOKENS];
        good[0] = true;
        Self { good, spent: [None; TOKENS], refreshed: [false; TOKENS], issued: 0 }
    }

    pub(crate) fn takes(&self, token: u8) -> bool {
        self.good[usize::from(token)]
    }

    /// Returns whether the access token that came with this refresh token was replaced.
    pub(crate) fn refreshed(&self, token: u8) -> bool {
        self.refreshed[usize::from(token)]
    }

    /// A new authorization: it adds a pair, and keeps the others.
    pub(crate) fn authorize(&mut self) -> u8 {
        self.issued += 1;
        self.good[usize::from(self.issued)] = true;
        self.issued
    }

    /// A refresh token arrives.
    pub(crate) fn refresh(&mut self, kind: Kind, token: u8, tick: u8) -> Bought {
        let at = usize::from(token);
        if self.good[at] {
            self.refreshed[at] = matches!(kind, Kind::OneTime { window_ticks: 1.., .. });
            if kind == Kind::Reusable {
                self.issued += 1;
                return Bought::Pair(token);
            }
            if let Kind::OneTime { window_ticks, .. } = kind {
                self.good[at] = false;
                self.spent[at] = (window_ticks > 0).then_some((self.issued + 1, tick));
            }
            return Bought::Pair(self.authorize());
        }
        match (kind, self.spent[at]) {
            (Kind::OneTime { window_ticks, .. }, Some((issued, then))) if tick - then < window_ticks => {
                self.spent[at] = None;
                Bought::Pair(issued)
            }
            (Kind::OneTime { kills: true, .. }, _) => Bought::Harm,
            _ => Bought::Nothing,
        }
    }
}
