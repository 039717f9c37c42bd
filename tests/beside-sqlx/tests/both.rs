//! Both open a file of their own, and read what they wrote.

use claviger::{SqliteStore, Store, Timestamp};

#[tokio::test]
async fn the_store_and_sqlx_work_in_one_program() {
    let folder = tempfile::tempdir().unwrap();

    let store = SqliteStore::open(&folder.path().join("claviger.db")).unwrap();
    let pool = sqlx::SqlitePool::connect_with(
        sqlx::sqlite::SqliteConnectOptions::new()
            .filename(folder.path().join("app.db"))
            .create_if_missing(true),
    )
    .await
    .unwrap();

    let until = Timestamp::from_millis(2_000_000_000_000);
    assert!(store.spend_login([7; 32], until).await.unwrap());
    sqlx::query("CREATE TABLE note (text TEXT NOT NULL)").execute(&pool).await.unwrap();
    sqlx::query("INSERT INTO note VALUES (?)").bind("ours").execute(&pool).await.unwrap();

    assert!(!store.spend_login([7; 32], until).await.unwrap(), "the first use was stored");
    let note: String = sqlx::query_scalar("SELECT text FROM note").fetch_one(&pool).await.unwrap();
    assert_eq!(note, "ours");
}
