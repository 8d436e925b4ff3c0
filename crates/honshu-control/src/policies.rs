//! Policies: statements that hang on a compartment and hold there and below.
//!
//! A policy that is stored can be read and means what it says: statements are parsed and placed before they
//! are written, and every problem of all of them is told at once.

use std::collections::HashMap;
use std::sync::Arc;

use honshu_domain::{Error, ErrorKind, Ocid, ResourceKind, Result};
use honshu_policy::{
    CompileProblem, Diagnostic, Effect, Operation, Severity, Statement, Target, Variable,
    check_statement,
};
use honshu_store::{Change, PolicyRow, StoreError};
use honshu_wire::oci;
use serde::Serialize;

use crate::check::{Problems, read_tags, tags_text};
use crate::compartments::check_version;
use crate::context::{OpCtx, Versioned, etag};
use crate::control::{ADMIN_POLICY, Control};
use crate::limits::{CHANGE_TRIES_MAX, STATEMENT_BYTES_MAX, STATEMENTS_MAX};
use crate::paging::{Page, PageRequest, SortKey};
use crate::state::compile;

/// Filters of ListPolicies.
#[derive(Debug, Clone, Default)]
pub struct ListPolicies {
    /// `compartmentId`: an OCID, a name or `root`.
    pub compartment_id: String,
    /// `name`, in any case.
    pub name: Option<String>,
    /// `lifecycleState`; all are `ACTIVE`.
    pub lifecycle_state: Option<String>,
    /// Order and page.
    pub page: PageRequest,
}

/// What is to be said about one statement.
#[derive(Debug, Clone, Serialize)]
pub struct StatementCheck {
    /// Whether it would be accepted.
    pub valid: bool,
    /// Errors and warnings, each with its place, expectation and hint.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads statements without storing anything. Pure: it knows no compartments and no caller.
pub fn check_policy(statements: &[String]) -> Vec<StatementCheck> {
    statements
        .iter()
        .map(|text| {
            let checked = check_statement(text);
            StatementCheck {
                valid: checked.is_valid(),
                diagnostics: checked.diagnostics,
            }
        })
        .collect()
}

impl Control {
    /// Makes a policy.
    ///
    /// # Errors
    /// 400 with every problem of every statement, not found for the compartment, 409 for a name that is taken.
    pub async fn create_policy(
        &self,
        ctx: &OpCtx,
        details: oci::CreatePolicyDetails,
        retry_token: Option<&str>,
    ) -> Result<Versioned<oci::Policy>> {
        const OPERATION: Operation = Operation::CreatePolicy;
        let mut problems = Problems::default();
        problems.name("name", &details.name);
        problems.description("description", &details.description);
        problems.tags(
            details.freeform_tags.as_ref(),
            details.defined_tags.as_ref(),
        );
        check_version_date(&mut problems, details.version_date.as_deref());
        let denies = check_statements(&mut problems, &details.statements);
        problems.done()?;
        let compartment = self.resolve_compartment(ctx, OPERATION, &details.compartment_id)?;
        self.authorize_policy(ctx, OPERATION, &compartment, denies)?;
        let id = Ocid::generate(ResourceKind::Policy, "", &*self.entropy);
        let retry = self.retry_entry(ctx, OPERATION.name(), retry_token, id.as_str(), &details)?;
        if let Some(earlier) = self.earlier(ctx, retry.as_ref()).await? {
            return self.get_policy(ctx, &earlier.resource);
        }
        let row = PolicyRow {
            id,
            compartment,
            name: details.name,
            description: details.description,
            statements: details.statements,
            version_date: details.version_date,
            freeform_tags: tags_text(details.freeform_tags.as_ref())?,
            defined_tags: tags_text(details.defined_tags.as_ref())?,
            created: ctx.now,
            updated: ctx.now,
            version: 1,
        };
        self.check_placed(&row)?;
        let shown = show(&row);
        match self
            .change(
                ctx,
                OPERATION.name(),
                retry.clone(),
                vec![Change::InsertPolicy(row)],
            )
            .await
        {
            Ok(_) => Ok(shown),
            Err(StoreError::RetryTokenTaken) => match self.earlier(ctx, retry.as_ref()).await? {
                Some(earlier) => self.get_policy(ctx, &earlier.resource),
                None => Err(StoreError::RetryTokenTaken.into()),
            },
            Err(error) => Err(error.into()),
        }
    }

    /// Lists the policies of one compartment.
    ///
    /// # Errors
    /// Not found for a compartment that is not there or not allowed.
    pub fn list_policies(&self, ctx: &OpCtx, asked: &ListPolicies) -> Result<Page<oci::Policy>> {
        const OPERATION: Operation = Operation::ListPolicies;
        let compartment = self.resolve_compartment(ctx, OPERATION, &asked.compartment_id)?;
        self.authorize_operation(ctx, OPERATION, &compartment)?;
        let policies = Arc::clone(&self.state.load().policies);
        let items = policies
            .rows
            .values()
            .filter(|row| {
                row.compartment == compartment
                    && asked
                        .name
                        .as_ref()
                        .is_none_or(|name| row.name.to_lowercase() == name.to_lowercase())
                    && asked
                        .lifecycle_state
                        .as_ref()
                        .is_none_or(|state| state.eq_ignore_ascii_case("ACTIVE"))
            })
            .collect();
        let page = asked.page.cut(items, |row: &&Arc<PolicyRow>| SortKey {
            name: row.name.clone(),
            created_us: row.created.as_micros(),
            id: row.id.as_str().to_owned(),
        })?;
        Ok(page.map(|row| show(row).value))
    }

    /// Gets a policy.
    ///
    /// # Errors
    /// Not found.
    pub fn get_policy(&self, ctx: &OpCtx, id: &str) -> Result<Versioned<oci::Policy>> {
        Ok(show(&*self.find_policy(ctx, Operation::GetPolicy, id)?))
    }

    /// Changes description, statements or tags.
    ///
    /// # Errors
    /// 400 with every problem, not found, 409 for the policy that keeps administrators in, 412.
    pub async fn update_policy(
        &self,
        ctx: &OpCtx,
        id: &str,
        details: oci::UpdatePolicyDetails,
        if_match: Option<&str>,
    ) -> Result<Versioned<oci::Policy>> {
        const OPERATION: Operation = Operation::UpdatePolicy;
        let mut problems = Problems::default();
        problems.description(
            "description",
            details.description.as_deref().unwrap_or_default(),
        );
        problems.tags(
            details.freeform_tags.as_ref(),
            details.defined_tags.as_ref(),
        );
        check_version_date(&mut problems, details.version_date.as_deref());
        let denies = match &details.statements {
            Some(statements) => check_statements(&mut problems, statements),
            None => false,
        };
        problems.done()?;
        for _ in 0..CHANGE_TRIES_MAX {
            let before = self.find_policy(ctx, OPERATION, id)?;
            self.authorize_policy(ctx, OPERATION, &before.compartment, denies)?;
            check_version(if_match, before.version)?;
            let mut row = (*before).clone();
            if let Some(statements) = &details.statements {
                self.protect_administrators(&before.id)?;
                row.statements.clone_from(statements);
            }
            if let Some(text) = &details.description {
                row.description.clone_from(text);
            }
            if details.version_date.is_some() {
                row.version_date.clone_from(&details.version_date);
            }
            if details.freeform_tags.is_some() {
                row.freeform_tags = tags_text(details.freeform_tags.as_ref())?;
            }
            if details.defined_tags.is_some() {
                row.defined_tags = tags_text(details.defined_tags.as_ref())?;
            }
            row.updated = ctx.now;
            row.version += 1;
            if details.statements.is_some() {
                self.check_placed(&row)?;
            }
            let shown = show(&row);
            let change = Change::PutPolicy(row, before.version);
            match self.change(ctx, OPERATION.name(), None, vec![change]).await {
                Ok(_) => return Ok(shown),
                Err(StoreError::Stale) if if_match.is_none() => {}
                Err(StoreError::NotFound) => return Err(self.missing(ctx, OPERATION, id)),
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Stale.into())
    }

    /// Deletes a policy. What it allowed is refused on this node when this returns.
    ///
    /// # Errors
    /// Not found, 409 for the policy that keeps administrators in, 412.
    pub async fn delete_policy(&self, ctx: &OpCtx, id: &str, if_match: Option<&str>) -> Result<()> {
        const OPERATION: Operation = Operation::DeletePolicy;
        for _ in 0..CHANGE_TRIES_MAX {
            let row = self.find_policy(ctx, OPERATION, id)?;
            check_version(if_match, row.version)?;
            self.protect_administrators(&row.id)?;
            let change = Change::DeletePolicy(row.id.clone(), row.version);
            match self.change(ctx, OPERATION.name(), None, vec![change]).await {
                Ok(_) => return Ok(()),
                Err(StoreError::Stale) if if_match.is_none() => {}
                Err(StoreError::NotFound) => return Err(self.missing(ctx, OPERATION, id)),
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Stale.into())
    }

    fn find_policy(&self, ctx: &OpCtx, operation: Operation, id: &str) -> Result<Arc<PolicyRow>> {
        self.refuse_keys(ctx)?;
        let row = Ocid::parse(id)
            .ok()
            .and_then(|id| self.state.load().policies.rows.get(&id).cloned())
            .ok_or_else(|| self.missing(ctx, operation, id))?;
        let denies = row.statements.iter().any(|text| is_deny(text));
        self.authorize_policy(ctx, operation, &row.compartment, denies)?;
        Ok(row)
    }

    /// Like `authorize_operation`, with `target.policy.type` for statements that guard deny policies.
    fn authorize_policy(
        &self,
        ctx: &OpCtx,
        operation: Operation,
        compartment: &Ocid,
        denies: bool,
    ) -> Result<()> {
        let kind = if denies { "deny" } else { "allow" };
        let target = Target::new(compartment.as_str())
            .operation(operation)
            .with(Variable::TargetPolicyType, kind);
        self.authorize_target(ctx, operation, &target)
    }

    /// The policy that `init` made says that administrators manage everything. Without it nobody could.
    fn protect_administrators(&self, id: &Ocid) -> Result<()> {
        let snapshot = self.state.load();
        if snapshot
            .identity
            .settings
            .get(ADMIN_POLICY)
            .is_some_and(|kept| kept == id.as_str())
        {
            return Err(Error::new(
                ErrorKind::Conflict,
                "this policy keeps the administrators from being locked out; its statements stay as they are",
            ));
        }
        Ok(())
    }

    /// Refuses statements that would do less than they say.
    fn check_placed(&self, row: &PolicyRow) -> Result<()> {
        let snapshot = Arc::clone(&self.state.load());
        let Some(set) = compile(&snapshot.identity, std::iter::once(row)) else {
            return Ok(());
        };
        let mut problems = Problems::default();
        for warning in set.warnings() {
            let message = match &warning.problem {
                CompileProblem::DenyDisabled => {
                    "deny statements are off in this tenancy; an administrator turns them on with `honshu policy settings --deny on`".to_owned()
                }
                problem => problem.to_string(),
            };
            problems.add(format!("statements[{}]", warning.statement.index), message);
        }
        problems.done()
    }
}

fn is_deny(text: &str) -> bool {
    check_statement(text).statements.iter().any(
        |statement| matches!(statement, Statement::Grant(grant) if grant.effect == Effect::Deny),
    )
}

/// Notes every problem of every statement; gives whether one of them denies.
fn check_statements(problems: &mut Problems, statements: &[String]) -> bool {
    if statements.is_empty() || statements.len() > STATEMENTS_MAX {
        problems.add(
            "statements",
            format!("must have 1 to {STATEMENTS_MAX} elements"),
        );
    }
    let mut denies = false;
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for (index, text) in statements.iter().take(STATEMENTS_MAX).enumerate() {
        let path = format!("statements[{index}]");
        if text.len() > STATEMENT_BYTES_MAX {
            problems.add(
                path,
                format!("must have at most {STATEMENT_BYTES_MAX} bytes"),
            );
            continue;
        }
        if let Some(first) = seen.insert(text.as_str(), index) {
            problems.add(
                path.clone(),
                format!("is the same as `statements[{first}]`"),
            );
        }
        let checked = check_statement(text);
        for diagnostic in &checked.diagnostics {
            if diagnostic.severity == Severity::Error {
                let mut message =
                    format!("column {}: {}", diagnostic.span.column, diagnostic.message);
                if diagnostic.span.line > 1 {
                    message = format!("line {}, {message}", diagnostic.span.line);
                }
                if let Some(hint) = &diagnostic.hint {
                    message.push_str(&format!(" (hint: {hint})"));
                }
                problems.add(path.clone(), message);
            }
        }
        denies |= checked
            .statements
            .iter()
            .any(|statement| matches!(statement, Statement::Grant(grant) if grant.effect == Effect::Deny));
    }
    denies
}

/// `YYYY-MM-DD`, as OCI takes it; the language has had one version so far.
fn check_version_date(problems: &mut Problems, date: Option<&str>) {
    if date.is_some_and(|date| !date.is_empty() && date.parse::<jiff::civil::Date>().is_err()) {
        problems.add("versionDate", "is not a date such as `2026-01-21`");
    }
}

fn show(row: &PolicyRow) -> Versioned<oci::Policy> {
    Versioned {
        value: oci::Policy {
            id: row.id.clone(),
            compartment_id: row.compartment.clone(),
            name: row.name.clone(),
            statements: row.statements.clone(),
            description: row.description.clone(),
            time_created: row.created,
            lifecycle_state: "ACTIVE".to_owned(),
            inactive_status: None,
            version_date: row.version_date.clone(),
            freeform_tags: read_tags(&row.freeform_tags),
            defined_tags: read_tags(&row.defined_tags),
        },
        etag: etag(row.version),
    }
}
