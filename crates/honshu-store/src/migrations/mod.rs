//! The schema's history: one file per step, named by date, applied in order, each in one transaction with
//! its line in `honshu_migrations`, so that a kill between two steps leaves a database that goes on.
//!
//! Steps expand first and contract in a later release: a release runs beside a database with unknown
//! `expand` steps (a rolling upgrade), and refuses one with unknown `contract` steps. A file that was
//! released is never edited; its checksum is compared at every start.

use std::path::Path;

use honshu_domain::{Clock, SystemClock};
use rusqlite::{Connection, TransactionBehavior, params};
use sha2::{Digest as _, Sha256};

use crate::error::OpenError;

/// Whether an older release can still work after the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Adds only.
    Expand,
    /// Takes something away that older releases use. None was needed so far.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "the first contracting step will make it")
    )]
    Contract,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Expand => "expand",
            Self::Contract => "contract",
        }
    }
}

/// One step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Migration {
    /// `YYYY_MM_DD_words`; the order of names is the order of steps.
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) sql: &'static str,
}

/// Every step of the control database.
pub(crate) const CONTROL: &[Migration] = &[Migration {
    name: "2026_11_23_first_light",
    kind: Kind::Expand,
    sql: include_str!("2026_11_23_first_light.sql"),
}];

/// Every step of the usage spool.
pub(crate) const SPOOL: &[Migration] = &[Migration {
    name: "2026_11_23_spool",
    kind: Kind::Expand,
    sql: include_str!("2026_11_23_spool.sql"),
}];

/// Every step of the database of responses, conversations and files.
pub(crate) const RESPONSES: &[Migration] = &[
    Migration {
        name: "2026_11_26_responses",
        kind: Kind::Expand,
        sql: include_str!("2026_11_26_responses.sql"),
    },
    Migration {
        name: "2026_11_26_stored_completions",
        kind: Kind::Expand,
        sql: include_str!("2026_11_26_stored_completions.sql"),
    },
    Migration {
        name: "2026_11_26_uploads",
        kind: Kind::Expand,
        sql: include_str!("2026_11_26_uploads.sql"),
    },
];

/// Brings the database to the last of `steps`.
///
/// # Errors
/// [`OpenError::SchemaTooNew`], [`OpenError::MigrationChanged`], [`OpenError::Database`].
pub(crate) fn migrate(
    connection: &mut Connection,
    path: &Path,
    steps: &[Migration],
) -> Result<(), OpenError> {
    let database = |source| OpenError::Database {
        path: path.to_owned(),
        source,
    };
    connection
        .execute_batch(
            "CREATE TABLE IF NOT EXISTS honshu_migrations (
                name TEXT PRIMARY KEY, kind TEXT NOT NULL, checksum TEXT NOT NULL, applied INTEGER NOT NULL
            ) STRICT",
        )
        .map_err(database)?;
    let applied: Vec<(String, String, String)> = connection
        .prepare("SELECT name, kind, checksum FROM honshu_migrations ORDER BY name")
        .and_then(|mut statement| {
            statement
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                .collect()
        })
        .map_err(database)?;
    for (name, kind, sum) in &applied {
        match steps.iter().find(|step| step.name == name) {
            Some(step) if checksum(step.sql) != *sum => {
                return Err(OpenError::MigrationChanged {
                    path: path.to_owned(),
                    migration: name.clone(),
                });
            }
            None if kind != Kind::Expand.as_str() => {
                return Err(OpenError::SchemaTooNew {
                    path: path.to_owned(),
                    migration: name.clone(),
                });
            }
            _ => {}
        }
    }
    for step in steps {
        if applied.iter().any(|(name, _, _)| name == step.name) {
            continue;
        }
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(database)?;
        transaction.execute_batch(step.sql).map_err(database)?;
        transaction
            .execute(
                "INSERT INTO honshu_migrations (name, kind, checksum, applied) VALUES (?1, ?2, ?3, ?4)",
                params![step.name, step.kind.as_str(), checksum(step.sql), SystemClock.now().as_micros()],
            )
            .map_err(database)?;
        transaction.commit().map_err(database)?;
    }
    Ok(())
}

fn checksum(sql: &str) -> String {
    Sha256::digest(sql.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Migration = Migration {
        name: "2026_01_01_one",
        kind: Kind::Expand,
        sql: "CREATE TABLE one (a INTEGER) STRICT",
    };
    const TWO: Migration = Migration {
        name: "2026_02_01_two",
        kind: Kind::Expand,
        sql: "CREATE TABLE two (a INTEGER) STRICT; INSERT INTO two VALUES (1)",
    };
    const GONE: Migration = Migration {
        name: "2026_03_01_gone",
        kind: Kind::Contract,
        sql: "DROP TABLE one",
    };

    fn path() -> &'static Path {
        Path::new("test.db")
    }

    #[test]
    fn steps_are_applied_once_and_in_order() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, path(), &[ONE]).unwrap();
        migrate(&mut connection, path(), &[ONE, TWO]).unwrap();
        migrate(&mut connection, path(), &[ONE, TWO]).unwrap();
        let rows: i64 = connection
            .query_row("SELECT count(*) FROM two", [], |row| row.get(0))
            .unwrap();
        assert_eq!(rows, 1);
    }

    #[test]
    fn an_older_release_runs_beside_an_expanded_schema_and_refuses_a_contracted_one() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, path(), &[ONE, TWO]).unwrap();
        migrate(&mut connection, path(), &[ONE]).unwrap();
        migrate(&mut connection, path(), &[ONE, TWO, GONE]).unwrap();
        let error = migrate(&mut connection, path(), &[ONE]).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("later release (migration `2026_03_01_gone`)"),
            "{error}"
        );
    }

    #[test]
    fn a_step_that_was_edited_after_it_was_applied_is_refused() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, path(), &[ONE]).unwrap();
        let edited = Migration {
            sql: "CREATE TABLE one (b INTEGER) STRICT",
            ..ONE
        };
        assert!(matches!(
            migrate(&mut connection, path(), &[edited]),
            Err(OpenError::MigrationChanged { .. })
        ));
    }

    #[test]
    fn a_step_that_fails_half_way_leaves_nothing_and_can_be_run_again() {
        let mut connection = Connection::open_in_memory().unwrap();
        let broken = Migration {
            sql: "CREATE TABLE two (a INTEGER) STRICT; nonsense",
            ..TWO
        };
        assert!(migrate(&mut connection, path(), &[ONE, broken]).is_err());
        migrate(&mut connection, path(), &[ONE, TWO]).unwrap();
    }

    #[test]
    fn released_steps_are_in_order() {
        for steps in [CONTROL, SPOOL, RESPONSES] {
            assert!(steps.is_sorted_by(|left, right| left.name < right.name));
        }
    }
}
