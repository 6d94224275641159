//! The reasons to refuse tables that are in the database already.

use crate::names::TableName;

/// The tables were made by a later version of this program.
pub(crate) fn too_new(table: &TableName, version: i64, known: i64) -> String {
    let events = table.as_str();
    format!(
        "the tables of {events} have version {version}, this program knows {known}: it is older than the one that made them"
    )
}

/// A table of this name exists that this program has not made. Nothing if the table has no columns, because it does not exist.
pub(crate) fn foreign(table: &TableName, columns: &[String]) -> Option<String> {
    let missing: Vec<&str> =
        ["position", "key", "origin"].into_iter().filter(|name| !columns.iter().any(|column| column == name)).collect();
    let lacks = if missing.is_empty() { "a version".to_owned() } else { format!("the columns {}", missing.join(", ")) };
    (!columns.is_empty()).then(|| {
        format!(
            "table_name: there is a table {} already that this program has not made; it lacks {lacks}. Choose another name",
            table.as_str()
        )
    })
}
