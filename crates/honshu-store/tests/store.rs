//! SQLite against the conformance suite, and what only a file can do: be full, be killed, be read by others.

#![allow(
    clippy::disallowed_methods,
    reason = "tests measure real time, and their tasks end with them"
)]

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use honshu_domain::{
    ErrorKind, FileStore as _, ResponseStore as _, StoredFile, Timestamp, UsageLog as _,
};
use honshu_store::suite::{self, usage_row};
use honshu_store::{
    Change, DataDir, Reason, Shipper, Spool, SpoolLimits, SqliteResponses, SqliteStore, Store,
    StoreError,
};

fn set(name: &str, value: String) -> honshu_store::Command {
    honshu_store::Command {
        operation: "Test".to_owned(),
        principal: None,
        request_id: None,
        at: Timestamp::from_seconds(1),
        retry: None,
        changes: vec![Change::SetSetting(name.to_owned(), value)],
    }
}

#[tokio::test]
async fn sqlite_does_what_a_store_has_to() {
    let home = tempfile::tempdir().unwrap();
    let count = std::sync::atomic::AtomicU32::new(0);
    suite::run(|| {
        let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = home.path().join(format!("{number}.db"));
        async move { SqliteStore::open_file(&path).unwrap() }
    })
    .await;
}

#[tokio::test]
async fn what_was_answered_is_there_after_reopening_and_files_are_private() {
    let home = tempfile::tempdir().unwrap();
    let directory = DataDir::open(home.path()).unwrap();
    let store = SqliteStore::open(&directory).unwrap();
    store.apply(set("a", "1".into())).await.unwrap();
    for entry in std::fs::read_dir(home.path()).unwrap() {
        let path = entry.unwrap().path();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", path.display());
    }
    drop(store);
    let store = SqliteStore::open(&directory).unwrap();
    assert_eq!(store.load().await.unwrap().settings["a"], "1");
}

#[tokio::test]
async fn a_full_disk_is_a_503_and_heals_by_itself() {
    let home = tempfile::tempdir().unwrap();
    let store = SqliteStore::open_file(&home.path().join("a.db")).unwrap();
    store.apply(set("before", "1".into())).await.unwrap();
    store.limit_pages(Some(1));
    let error = store
        .apply(set("big", "x".repeat(1_000_000)))
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::Unavailable {
                reason: Reason::DiskFull,
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(
        honshu_domain::Error::from(error).kind(),
        ErrorKind::Unavailable
    );
    let settings = store.load().await.unwrap().settings;
    assert_eq!(settings.len(), 1, "nothing half-written");
    store.limit_pages(None);
    store
        .apply(set("big", "x".repeat(1_000_000)))
        .await
        .unwrap();
}

#[tokio::test]
async fn garbage_in_place_of_the_database_is_one_clear_line() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("a.db");
    std::fs::write(
        &path,
        "this is no database, whatever its name says; long enough to be read as one".repeat(20),
    )
    .unwrap();
    let message = SqliteStore::open_file(&path).err().unwrap().to_string();
    assert!(
        message.contains("a.db") && !message.contains('\n'),
        "{message}"
    );
}

#[tokio::test]
async fn rows_go_from_spool_to_store_once() {
    let home = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> =
        Arc::new(SqliteStore::open_file(&home.path().join("a.db")).unwrap());
    let spool =
        Arc::new(Spool::open_file(&home.path().join("s.db"), SpoolLimits::default()).unwrap());
    for n in 0..10 {
        spool
            .record(usage_row(&format!("r{n}"), Timestamp::from_seconds(n)))
            .await
            .unwrap();
    }
    spool
        .record(usage_row("r3", Timestamp::from_seconds(3)))
        .await
        .unwrap();
    assert_eq!(spool.pending_rows(), 11);
    let shipper = Shipper::new(Arc::clone(&spool), Arc::clone(&store));
    assert_eq!(shipper.ship().await.unwrap(), 10);
    assert_eq!(spool.pending_rows(), 0);
    assert_eq!(shipper.ship().await.unwrap(), 0);
    let rows = store
        .list_usage(Timestamp::from_seconds(0), Timestamp::from_seconds(99), 99)
        .await
        .unwrap();
    assert_eq!(rows.len(), 10);
}

#[tokio::test]
async fn a_spool_that_may_hold_no_more_refuses_and_recovers() {
    let home = tempfile::tempdir().unwrap();
    let limits = SpoolLimits {
        spooled_rows_max: 2,
        ..SpoolLimits::default()
    };
    let store: Arc<dyn Store> =
        Arc::new(SqliteStore::open_file(&home.path().join("a.db")).unwrap());
    let spool = Arc::new(Spool::open_file(&home.path().join("s.db"), limits).unwrap());
    let row = |n: i64| usage_row(&format!("r{n}"), Timestamp::from_seconds(n));
    spool.record(row(0)).await.unwrap();
    spool.record(row(1)).await.unwrap();
    assert_eq!(
        spool.record(row(2)).await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    Shipper::new(Arc::clone(&spool), store)
        .ship()
        .await
        .unwrap();
    spool.record(row(2)).await.unwrap();
}

/// The child of the next test: writes rows and says which were answered, until it is killed.
#[tokio::test]
async fn child_that_writes_until_it_is_killed() {
    let Ok(path) = std::env::var("HONSHU_TEST_SPOOL") else {
        return;
    };
    let spool = Arc::new(Spool::open_file(path.as_ref(), SpoolLimits::default()).unwrap());
    let round = std::process::id();
    let tasks: Vec<_> = (0..16)
        .map(|task| {
            let spool = Arc::clone(&spool);
            tokio::spawn(async move {
                for n in 0_u64.. {
                    let run = format!("{round}-{task}-{n}");
                    spool
                        .record(usage_row(&run, Timestamp::from_seconds(1)))
                        .await
                        .unwrap();
                    println!("ACK {run}");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn kill_9_loses_no_answered_row() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("s.db");
    let mut acked = Vec::new();
    for round in 0..3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "child_that_writes_until_it_is_killed",
                "--exact",
                "--nocapture",
            ])
            .env("HONSHU_TEST_SPOOL", &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        let mut count = 0;
        while lines.read_line(&mut line).unwrap() > 0 {
            // The test harness may write its own words before the first line.
            if let Some((_, run)) = line
                .trim_end()
                .split_once("ACK ")
                .filter(|_| line.ends_with('\n'))
            {
                acked.push(run.to_owned());
                count += 1;
                if count == 500 + round * 137 {
                    child.kill().unwrap();
                }
            }
            line.clear();
        }
        child.wait().unwrap();
    }
    let store: Arc<dyn Store> =
        Arc::new(SqliteStore::open_file(&home.path().join("a.db")).unwrap());
    let spool = Arc::new(Spool::open_file(&path, SpoolLimits::default()).unwrap());
    Shipper::new(spool, Arc::clone(&store))
        .ship()
        .await
        .unwrap();
    let rows = store
        .list_usage(
            Timestamp::from_seconds(0),
            Timestamp::from_seconds(9),
            1_000_000,
        )
        .await
        .unwrap();
    let there: std::collections::HashSet<&str> = rows.iter().map(|row| &*row.run_id).collect();
    assert!(acked.len() >= 1_500);
    let lost: Vec<_> = acked
        .iter()
        .filter(|run| !there.contains(run.as_str()))
        .collect();
    assert!(lost.is_empty(), "lost {lost:?}");
}

/// Run with `--ignored --nocapture`: CPU time of the whole process per row, 64 callers at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn measure_cpu_per_row() {
    let home = tempfile::tempdir().unwrap();
    let spool =
        Arc::new(Spool::open_file(&home.path().join("s.db"), SpoolLimits::default()).unwrap());
    let ticks = || {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let fields: Vec<u64> = stat
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|f| f.parse().unwrap())
            .collect();
        (fields[0] + fields[1]) * 10_000
    };
    let (cpu, wall) = (ticks(), Instant::now());
    let tasks: Vec<_> = (0..64)
        .map(|task| {
            let spool = Arc::clone(&spool);
            tokio::spawn(async move {
                for n in 0..2_000 {
                    spool
                        .record(usage_row(
                            &format!("{task}-{n}"),
                            Timestamp::from_seconds(n),
                        ))
                        .await
                        .unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let rows = 64 * 2_000;
    println!(
        "{} us CPU/row, {} rows/s",
        (ticks() - cpu) as f64 / f64::from(rows),
        f64::from(rows) / wall.elapsed().as_secs_f64()
    );
}

#[tokio::test]
async fn sqlite_does_what_a_store_of_responses_has_to() {
    let home = tempfile::tempdir().unwrap();
    let count = std::sync::atomic::AtomicU32::new(0);
    honshu_store::stored_suite::run(|| {
        let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = home.path().join(format!("{number}.db"));
        async move { SqliteResponses::open_file(&path).unwrap() }
    })
    .await;
}

#[tokio::test]
async fn a_thousand_turns_are_read_by_the_index() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("a.db");
    let store = SqliteResponses::open_file(&path).unwrap();
    let mine = honshu_store::stored_suite::scope("mine");
    let mut after = None;
    for n in 0..1_000 {
        let id = format!("r{n}");
        let response = honshu_store::stored_suite::ended(&mine, &id, after);
        assert!(store.end(response).await.unwrap());
        after = Some(honshu_domain::Anchor {
            thread: after.map_or(1, |anchor: honshu_domain::Anchor| anchor.thread),
            until: (n + 1) * 2,
        });
    }
    let history = store.history(&mine, "r999").await.unwrap().unwrap();
    assert_eq!(history.items.len(), 2_000);
    assert_eq!(Some(history.anchor), after, "one thread holds them all");
    // A turn writes its own items and nothing else.
    let connection = rusqlite::Connection::open(&path).unwrap();
    let count = |table: &str| -> i64 {
        connection
            .query_row(&format!("SELECT count(*) FROM {table}"), [], |row| {
                row.get(0)
            })
            .unwrap()
    };
    assert_eq!(
        (count("items"), count("threads"), count("responses")),
        (2_000, 1, 1_000)
    );
}

#[tokio::test]
async fn an_upload_that_a_kill_cut_is_gone_at_the_next_start_and_files_stay() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("a.db");
    let mine = honshu_store::stored_suite::scope("mine");
    let now = Timestamp::from_seconds(1);
    let file = |id: &str| StoredFile {
        id: id.into(),
        filename: "a".to_owned(),
        purpose: "user_data".to_owned(),
        bytes: 3,
        created: now,
        expires: None,
    };
    let rows = |table: &str| -> i64 {
        let connection = rusqlite::Connection::open(&path).unwrap();
        let count = format!("SELECT count(*) FROM {table}");
        connection.query_row(&count, [], |row| row.get(0)).unwrap()
    };
    {
        let store = SqliteResponses::open_file(&path).unwrap();
        let whole = store.begin_upload(now).await.unwrap();
        let cut = store.begin_upload(now).await.unwrap();
        for upload in [whole, cut] {
            let bytes = bytes::Bytes::from_static(b"abc");
            assert!(store.append_upload(upload, bytes).await.unwrap());
        }
        assert!(store.end_upload(&mine, whole, file("new")).await.unwrap());
    }
    assert_eq!((rows("uploads"), rows("file_pieces")), (2, 2));
    // A file as releases before uploads wrote it.
    rusqlite::Connection::open(&path)
        .unwrap()
        .execute_batch(
            "INSERT INTO files (number, id, scope, filename, purpose, bytes, created)
             SELECT 77, 'old', scope, filename, purpose, bytes, created FROM files;
             INSERT INTO file_contents (file, content) VALUES (77, X'78797a')",
        )
        .unwrap();
    let store = SqliteResponses::open_file(&path).unwrap();
    assert_eq!((rows("uploads"), rows("file_pieces")), (1, 1));
    for (id, content) in [("new", &b"abc"[..]), ("old", b"xyz")] {
        let whole = store.file_content(&mine, id, now).await.unwrap();
        assert_eq!(whole.as_deref(), Some(content), "{id}");
        let piece = store.file_piece(&mine, id, 0, now).await.unwrap();
        assert_eq!(piece.as_deref(), Some(content), "{id}");
        assert_eq!(store.file_piece(&mine, id, 1, now).await.unwrap(), None);
        assert!(store.delete_file(&mine, id).await.unwrap());
    }
    for table in ["files", "file_contents", "uploads", "file_pieces"] {
        assert_eq!(rows(table), 0, "{table}");
    }
}

#[tokio::test]
async fn an_upload_onto_a_full_disk_is_a_503_and_its_room_comes_back() {
    let home = tempfile::tempdir().unwrap();
    let store = SqliteResponses::open_file(&home.path().join("a.db")).unwrap();
    let now = Timestamp::from_seconds(1);
    let piece = || bytes::Bytes::from(vec![7; 64 * 1024]);
    let upload = store.begin_upload(now).await.unwrap();
    store.limit_pages(Some(200));
    let mut taken = 0;
    let error = loop {
        match store.append_upload(upload, piece()).await {
            Ok(is_there) => assert!(is_there),
            Err(error) => break error,
        }
        taken += 1;
        assert!(taken < 100, "200 pages took 6 MB");
    };
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    store.drop_upload(upload).await.unwrap();
    let next = store.begin_upload(now).await.unwrap();
    for _ in 0..taken {
        assert!(store.append_upload(next, piece()).await.unwrap());
    }
}
