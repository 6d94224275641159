//! The macros that declare settings.

/// Declares a struct of settings. Of each setting the declaration has the documentation, the name, the type, the default, the bounds, and
/// whether it is secret; the first line of the documentation is its meaning in a configuration file.
///
/// ```
/// use std::time::Duration;
/// use eventbroker_bridge_kit::settings::{Secret, Settings};
///
/// eventbroker_bridge_kit::settings! {
///     /// The settings of a provider.
///     pub struct Example {
///         /// The stream.
///         stream_name(into): String = "events", 1 ..= 200 bytes;
///         /// The lease of a delivery.
///         ///
///         /// A member extends its leases each third of this time.
///         lease_time: Duration = 30 s, 100 ms ..= 7 days;
///         /// A token to log in with.
///         token(into): Secret, secret;
///     }
/// }
///
/// let example = Example::default().stream_name("shop").lease_time(Duration::from_millis(99));
/// assert_eq!(example.check_bounds(), Err("lease_time: is 99ms, at least 100ms is required".to_owned()));
/// assert_eq!(Example::keys()[1].meaning, "The lease of a delivery");
/// ```
///
/// The word behind a name says how the setting is set:
///
/// | | field | setter takes | default |
/// |---|---|---|---|
/// | `name: T` | `T` | `T` | as written; a unit (`ms`, `s`, `days`) makes a duration |
/// | `name(into): T` | `T` | `impl Into<T>` | as text |
/// | `name(word): T` | `T` | `T` | as text |
/// | `name(optional): T` | `Option<T>` | `impl Into<T>` | none |
/// | `name(no_setter): T` | `T` | there is no setter | as text |
///
/// A default that is not written is the type's. Bounds are whole numbers, times with a unit, or lengths of a text in `bytes`. Errors and
/// listings hide a value that is `secret`, and its type should be [`Secret`](crate::settings::Secret) or [`Url`](crate::settings::Url).
///
/// `setters on Builder => part;` behind the struct puts the setters on another type, whose
/// field `part` is the struct.
#[macro_export]
macro_rules! settings {
    ($(#[$about:meta])* pub struct $name:ident $settings:tt) => {
        $crate::settings! { @struct [$(#[$about])* #[must_use]] $name $settings }
        $crate::settings! { @setters $name, [] $settings }
    };
    ($(#[$about:meta])* pub struct $name:ident $settings:tt
     $($(#[$condition:meta])* setters on $builder:path => $part:ident;)+) => {
        $crate::settings! { @struct [$(#[$about])*] $name $settings }
        $(
            $(#[$condition])*
            $crate::settings! { @setters $builder, [$part] $settings }
        )+
    };

    // The struct, its defaults and its keys.
    (@struct [$($about:tt)*] $name:ident { $(
        #[doc = $meaning:literal] $(#[doc = $more:literal])*
        $field:ident $(($how:ident))? : $type:ty
            $(= $default:literal $($unit:ident)?)?
            $(, $min:literal $($min_unit:ident)? ..= $max:literal $($max_unit:ident)?)?
            $(, $secret:ident)? ;
    )* }) => {
        $($about)*
        #[derive(Debug, Clone, PartialEq)]
        #[non_exhaustive]
        pub struct $name { $(
            #[doc = $meaning]
            pub $field: $crate::settings!(@type [$($how)?] $type),
        )* }

        impl ::core::default::Default for $name {
            fn default() -> Self {
                Self { $($field: $crate::settings!(@default [$($how)?] $($default $($unit)?)?),)* }
            }
        }

        impl $crate::settings::Settings for $name {
            fn keys() -> ::std::vec::Vec<$crate::settings::Key<Self>> {
                ::std::vec![$(
                    $crate::settings::Key::new(stringify!($field), $meaning, |it: &mut Self| &mut it.$field)
                        $(.bounds(($crate::settings!(@bound [$($max_unit)?] $min $($min_unit)?),
                                   $crate::settings!(@bound [$($max_unit)?] $max $($max_unit)?))))?
                        $(.$secret())?,
                )*]
            }
        }
    };

    // The setters, with the documentation of the declaration.
    (@setters $builder:path, $part:tt { $(
        $(#[doc = $doc:literal])+
        $field:ident $(($how:ident))? : $type:ty
            $(= $default:literal $($unit:ident)?)?
            $(, $min:literal $($min_unit:ident)? ..= $max:literal $($max_unit:ident)?)?
            $(, $secret:ident)? ;
    )* }) => {
        impl $builder { $(
            $crate::settings! { @setter [
                $(#[doc = $doc])+
                #[doc = ""]
                #[doc = concat!(
                    $("Default `", stringify!($default $($unit)?), "`.",)?
                    $(" From ", stringify!($min $($min_unit)?), " to ", stringify!($max $($max_unit)?), ".",)?
                    ""
                )]
            ] [$($how)?] $part $field $type }
        )* }
    };
    (@setter [$($docs:tt)*] [] [$($part:ident)?] $field:ident $type:ty) => {
        $($docs)*
        pub fn $field(mut self, value: $type) -> Self {
            self.$($part.)?$field = value;
            self
        }
    };
    (@setter $docs:tt [word] $part:tt $field:ident $type:ty) => {
        $crate::settings! { @setter $docs [] $part $field $type }
    };
    (@setter [$($docs:tt)*] [into] [$($part:ident)?] $field:ident $type:ty) => {
        $($docs)*
        pub fn $field(mut self, value: impl Into<$type>) -> Self {
            self.$($part.)?$field = value.into();
            self
        }
    };
    (@setter [$($docs:tt)*] [optional] [$($part:ident)?] $field:ident $type:ty) => {
        $($docs)*
        pub fn $field(mut self, value: impl Into<$type>) -> Self {
            self.$($part.)?$field = Some(value.into());
            self
        }
    };
    (@setter $docs:tt [no_setter] $part:tt $field:ident $type:ty) => {};

    (@type [optional] $type:ty) => { Option<$type> };
    (@type [$($how:ident)?] $type:ty) => { $type };

    (@default [$($how:ident)?]) => { ::core::default::Default::default() };
    (@default [] $default:literal $($unit:ident)?) => { $crate::settings!(@value $default $($unit)?) };
    (@default [$how:ident] $default:literal) => { $crate::settings::from_text($default) };

    (@bound [bytes] $length:literal $($unit:ident)?) => { $crate::settings::Measure::Bytes($length) };
    (@bound [] $number:literal) => { $crate::settings::Measure::Whole($number) };
    (@bound [$max_unit:ident] $time:literal $unit:ident) => {
        $crate::settings::Measure::Span($crate::settings!(@value $time $unit))
    };

    (@value $number:literal) => { $number };
    (@value $time:literal ms) => { ::core::time::Duration::from_millis($time) };
    (@value $time:literal s) => { ::core::time::Duration::from_secs($time) };
    (@value $time:literal days) => { ::core::time::Duration::from_secs($time * 24 * 3600) };
}

/// Makes an enum a [`Setting`](crate::settings::Setting): its variants are words, in any case of letters.
#[macro_export]
macro_rules! words {
    ($type:ty: $($word:literal = $variant:expr),*) => {
        impl $crate::settings::Setting for $type {
            fn read(&mut self, text: &str) -> bool {
                *self = match text.to_ascii_lowercase().as_str() {
                    $($word => $variant,)*
                    _ => return false,
                };
                true
            }
            fn show(&self) -> String {
                let words = [$(($word, $variant)),*];
                words.iter().find(|(_, variant)| variant == self).map(|(word, _)| (*word).to_owned()).unwrap_or_default()
            }
            fn expected(&self) -> String {
                [$($word),*].join(" or ")
            }
            fn schema(&self) -> $crate::settings::Value {
                $crate::settings::one_of(&[$($word),*])
            }
        }
    };
}
