//! Notifies all instances of sessions that changed.

use uuid::Uuid;

use crate::{
    database::{PooledConnection, bounds},
    error::Fault,
};

/// Notification channel for changes. Each payload is a list of session ids in hexadecimal.
pub(crate) const CHANNEL: &str = "claviger_changes";
/// At most this many ids fit into a notification: 8000 octets, 33 for each id.
pub(crate) const IDS_A_MESSAGE: i64 = 200;

const NOTIFY: &str = "SELECT pg_notify($1, string_agg(encode(uuid_send(id), 'hex'), ','))
    FROM (SELECT id, (place - 1) / $3 AS batch FROM unnest($2::uuid[]) WITH ORDINALITY AS n (id, place)) AS ended
    GROUP BY batch";

/// Notifies all instances that these sessions changed.
pub(crate) async fn notify(connection: &PooledConnection, ids: &[Uuid]) -> Result<(), Fault> {
    connection.query(NOTIFY, &bounds![TEXT: CHANNEL, UUID_ARRAY: ids, INT8: IDS_A_MESSAGE]).await?;
    Ok(())
}
