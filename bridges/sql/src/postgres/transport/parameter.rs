//! Parameters of statements. The type of each follows from its Rust type, so that no statement has to be described by the server before
//! it can be run.

use std::time::SystemTime;

use postgres::types::{ToSql, Type};

/// A Rust type that has one type of PostgreSQL.
pub(crate) trait Typed: ToSql + Sync {
    const TYPE: Type;
    const ARRAY: Type;
}

/// A value of any such type.
pub(crate) trait Parameter: Sync {
    fn sql_type(&self) -> Type;
    fn as_sql(&self) -> &(dyn ToSql + Sync);
}

impl<T: Typed> Parameter for T {
    fn sql_type(&self) -> Type {
        T::TYPE
    }

    fn as_sql(&self) -> &(dyn ToSql + Sync) {
        self
    }
}

macro_rules! typed {
    ($($rust:ty: $sql:ident, $array:ident;)+) => {$(
        impl Typed for $rust {
            const TYPE: Type = Type::$sql;
            const ARRAY: Type = Type::$array;
        }
    )+};
}

typed! {
    bool: BOOL, BOOL_ARRAY;
    i16: INT2, INT2_ARRAY;
    i32: INT4, INT4_ARRAY;
    i64: INT8, INT8_ARRAY;
    f64: FLOAT8, FLOAT8_ARRAY;
    String: TEXT, TEXT_ARRAY;
    &str: TEXT, TEXT_ARRAY;
    SystemTime: TIMESTAMPTZ, TIMESTAMPTZ_ARRAY;
}

impl<T: Typed> Typed for &T {
    const TYPE: Type = T::TYPE;
    const ARRAY: Type = T::ARRAY;
}

impl<T: Typed> Typed for Option<T> {
    const TYPE: Type = T::TYPE;
    const ARRAY: Type = T::ARRAY;
}

/// An array has no arrays of its own here.
impl<T: Typed> Typed for Vec<T> {
    const TYPE: Type = T::ARRAY;
    const ARRAY: Type = T::ARRAY;
}

/// A value to bind.
pub(crate) type Value<'a> = Box<dyn Parameter + Send + 'a>;

/// The values as a statement takes them.
pub(crate) fn references<'a>(values: &'a [Value<'_>]) -> Vec<&'a dyn Parameter> {
    values.iter().map(|value| &**value as &dyn Parameter).collect()
}
