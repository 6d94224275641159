//! The conversions of the types that `parse` checks.

/// Implements `FromStr` and `TryFrom` for types with a `parse(&str)`.
macro_rules! from_text {
    ($($type:ty),*) => {
        $(
            impl std::str::FromStr for $type {
                type Err = super::Invalid;

                fn from_str(text: &str) -> Result<Self, super::Invalid> {
                    Self::parse(text)
                }
            }

            impl TryFrom<&str> for $type {
                type Error = super::Invalid;

                fn try_from(text: &str) -> Result<Self, super::Invalid> {
                    Self::parse(text)
                }
            }

            impl TryFrom<String> for $type {
                type Error = super::Invalid;

                fn try_from(text: String) -> Result<Self, super::Invalid> {
                    Self::parse(&text)
                }
            }
        )*
    };
}

from_text!(super::EventId, super::EventType, super::Pattern);
