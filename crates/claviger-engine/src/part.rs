//! Declares parts of the engine.

/// Declares a part: the parts that it needs, and what it owns, each with its first value.
///
/// ```text
/// part! {
///     /// Cleans up.
///     pub(crate) struct Housekeeping needs {
///         env: Env,
///         rows: Arc<Rows>,
///     } owns {
///         /// The number of rows that were deleted.
///         deleted: AtomicU64 = AtomicU64::new(0),
///     }
/// }
/// ```
///
/// Both become private fields. The constructor takes what the part needs, in this order and by
/// reference: `Housekeeping::new(&env, &rows)`. A first value may use what the part needs.
macro_rules! part {
    (
        $(#[$about:meta])*
        pub(crate) struct $part:ident needs {
            $($need:ident: $needed:ty,)*
        }
        $(owns {
            $($(#[$note:meta])* $own:ident: $owned:ty = $first:expr,)*
        })?
    ) => {
        $(#[$about])*
        pub(crate) struct $part {
            $($need: $needed,)*
            $($($(#[$note])* $own: $owned,)*)?
        }

        impl $part {
            #[allow(clippy::too_many_arguments, reason = "they are the parts that this one needs")]
            pub(crate) fn new($($need: &$needed),*) -> std::sync::Arc<Self> {
                std::sync::Arc::new(Self {
                    $($($own: $first,)*)?
                    $($need: $need.clone(),)*
                })
            }
        }
    };
}

pub(crate) use part;
