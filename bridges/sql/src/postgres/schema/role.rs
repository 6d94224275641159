//! Settings and rights of the role that the tables do not work with. Other settings are replaced for each session (`transport`).

use postgres::Error;

use crate::names::TableName;
use crate::postgres::transport::Session;

/// The setting of the role, the database or the server that the tables do not work with, and why.
pub(super) fn refused_setting(session: &mut Session) -> Result<Option<String>, Error> {
    let settings = "SELECT current_setting('server_encoding'), current_schema()::text, \
         current_setting('transaction_read_only'), current_setting('session_replication_role'), current_setting('search_path')";
    let rows = session.query(settings, &[])?;
    let Some(row) = rows.first() else { return Ok(None) };
    let (encoding, read_only, replication): (String, String, String) =
        (row.try_get(0)?, row.try_get(2)?, row.try_get(3)?);
    let (schema, search_path): (Option<String>, String) = (row.try_get(1)?, row.try_get(4)?);
    Ok(if encoding != "UTF8" {
        Some(format!("the database has the encoding {encoding}; UTF8 is required"))
    } else if schema.is_none() {
        Some(format!("search_path: is {search_path:?}, a schema that exists and that the role may use is required"))
    } else if read_only != "off" {
        Some("transaction_read_only: is on, because the server is a standby or default_transaction_read_only is on; a server \
              and a role that may write are required (SQLSTATE 25006: read-only transaction)"
            .to_owned())
    } else if replication == "replica" {
        Some("session_replication_role: is replica, so no trigger makes deliveries; origin is required".to_owned())
    } else {
        None
    })
}

/// The functions of the tables that the role may not execute, in an error that says what to grant. `migrations` have the functions.
pub(super) fn refused_right(
    session: &mut Session,
    table: &TableName,
    migrations: &[&str],
) -> Result<Option<String>, Error> {
    let names: Vec<String> = migrations
        .iter()
        .flat_map(|text| text.split("CREATE FUNCTION {events}").skip(1))
        .map(|rest| format!("{}{}", table.as_str(), rest.split('(').next().unwrap_or_default()))
        .collect();
    // The trigger's function is executed without a right.
    let refused = "SELECT current_user::text, string_agg(p.oid::regprocedure::text, ', ' ORDER BY p.proname) \
         FROM pg_proc p JOIN pg_class c ON c.oid = to_regclass($1) AND c.relnamespace = p.pronamespace \
         WHERE p.proname = ANY ($2) AND p.prorettype <> 'trigger'::regtype AND NOT has_function_privilege(p.oid, 'EXECUTE')";
    let rows = session.query(refused, &[&table.as_str(), &names])?;
    let Some(row) = rows.first() else { return Ok(None) };
    let (role, functions): (String, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
    Ok(functions
        .map(|functions| format!("permission denied: GRANT EXECUTE ON FUNCTION {functions} TO {role} is required")))
}
