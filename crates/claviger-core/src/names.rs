//! Stable names of enum values, as settings, stores and JSON spell them.

/// An enum whose values have stable names. The macro [`named!`](crate::named) implements it.
pub trait Named: Copy + Eq + 'static {
    /// Every value with its name.
    const NAMES: &'static [(Self, &'static str)];

    /// The name of this value.
    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(value, _)| *value == self).map_or("unknown", |(_, name)| name)
    }

    /// The value with this name.
    fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(value, _)| *value)
    }
}

/// Declares an enum whose values have stable names: each value with its name.
///
/// ```
/// claviger_core::named! {
///     /// A size.
///     pub enum Size {
///         /// Less than a page.
///         Small = "small",
///         /// A page or more.
///         Large = "large",
///     }
/// }
/// assert_eq!(Size::Large.name(), "large");
/// assert_eq!(Size::from_name("small"), Some(Size::Small));
/// ```
#[macro_export]
macro_rules! named {
    (
        $(#[$about:meta])*
        $vis:vis enum $enum:ident {
            $($(#[$note:meta])* $value:ident = $name:literal,)+
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        $vis enum $enum {
            $($(#[$note])* $value,)+
        }

        impl $enum {
            /// Every value with its stable name.
            $vis const NAMES: [(Self, &'static str); [$($name),+].len()] = [$((Self::$value, $name)),+];

            /// Returns the stable name.
            $vis const fn name(self) -> &'static str {
                match self {
                    $(Self::$value => $name,)+
                }
            }

            /// Returns the value with this stable name.
            $vis fn from_name(name: &str) -> Option<Self> {
                <Self as $crate::Named>::from_name(name)
            }
        }

        impl $crate::Named for $enum {
            const NAMES: &'static [(Self, &'static str)] = &Self::NAMES;
        }
    };
}
