//! What a provider does with refresh tokens. Tokens are numbers, the first is 0.

/// The kinds of providers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A token is good once. For so many ticks after that, one more use buys the same answer; any other use kills the whole
    /// connection, or only fails.
    OneTime { window_ticks: u8, kills: bool },
    /// A new token comes, and the old one goes on.
    Rotates,
    /// The same token is good again and again.
    Reusable,
}

/// So many tokens of one device at most.
pub(crate) const TOKENS: usize = 6;

/// What the provider knows of one device.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Grant {
    /// Which refresh tokens it takes. A new authorization gives one more.
    good: [bool; TOKENS],
    /// What a spent token bought, and when, while it may be used once more.
    spent: [Option<(u8, u8)>; TOKENS],
    /// For each token, whether a refresh with it may have killed the access token that came with it.
    refreshed: [bool; TOKENS],
    /// How many pairs it issued besides the first.
    pub(crate) issued: u8,
}

/// What a refresh token bought.
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

    /// Whether the access token that came with this refresh token was replaced.
    pub(crate) fn refreshed(&self, token: u8) -> bool {
        self.refreshed[usize::from(token)]
    }

    /// A new authorization: a pair of its own, and nothing is taken from the others.
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
