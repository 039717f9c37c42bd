//! Variants of the engine and its surroundings that the simulator must catch.

/// What is broken on purpose, to show that the simulator notices. Each variant but the first
/// removes something that the engine relies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Variant {
    /// Nothing.
    #[default]
    Shipped,
    /// An instance never reads a row again, and ends rows by its first view of them.
    SkipsReRead,
    /// A claim's lease ends before the answer can arrive.
    ShortLease,
    /// A refresh whose answer is lost is sent again at once.
    RetriesLostAnswer,
    /// The browser's cookie is cleared whenever a request fails.
    ClearsCookieForLoser,
    /// A row never says that its replay was used.
    ForgetsReplay,
    /// A row is written whatever its stored version.
    NoCompareAndSet,
    /// A refresh stops when its caller goes away.
    DropsWithCaller,
}
