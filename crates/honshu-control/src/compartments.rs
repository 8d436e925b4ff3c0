//! Compartments: a tree below the tenancy's root compartment.
//!
//! A compartment is acted on in itself; making one is acting in its parent (OCI IAM policy reference).

use std::sync::Arc;

use honshu_domain::{Error, ErrorKind, Ocid, ResourceKind, Result};
use honshu_policy::Operation;
use honshu_store::{Change, CompartmentRow, StoreError};
use honshu_wire::oci;

use crate::check::{Problems, read_tags, tags_text};
use crate::context::{OpCtx, Versioned, etag, if_match_names};
use crate::control::Control;
use crate::limits::{CHANGE_TRIES_MAX, COMPARTMENT_DEPTH_MAX};
use crate::paging::{Page, PageRequest, SortKey};
use crate::state::Snapshot;

/// The name by which callers may call the root compartment.
const ROOT_NAME: &str = "root";

/// Filters of ListCompartments.
#[derive(Debug, Clone, Default)]
pub struct ListCompartments {
    /// `compartmentId`: the parent; an OCID, a name or `root`.
    pub compartment_id: String,
    /// `compartmentIdInSubtree`: everything below, not only children.
    pub in_subtree: bool,
    /// `includeRoot`, a filter of ours that the CLI uses: also the compartment that was named.
    pub include_root: bool,
    /// `name`, in any case.
    pub name: Option<String>,
    /// `lifecycleState`; all are `ACTIVE`.
    pub lifecycle_state: Option<String>,
    /// Order and page.
    pub page: PageRequest,
}

impl Control {
    /// What `text` names: an OCID is taken as it is, `root` is the root compartment, and anything else is a
    /// name or a path `A:B` from the root, among the compartments that the caller may inspect. That an OCID
    /// exists is left to the authorization that has to follow.
    ///
    /// # Errors
    /// Not found when nothing has the name; 400 when several have.
    pub fn resolve_compartment(
        &self,
        ctx: &OpCtx,
        operation: Operation,
        text: &str,
    ) -> Result<Ocid> {
        if text.is_empty() {
            return Err(Error::invalid_at("compartmentId", "is required"));
        }
        if text.starts_with("ocid1.") {
            return Ocid::parse(text).map_err(|_| self.missing(ctx, operation, text));
        }
        let snapshot = Arc::clone(&self.state.load());
        let identity = &snapshot.identity;
        let root = identity
            .root()
            .ok_or_else(|| self.missing(ctx, operation, text))?;
        if text.eq_ignore_ascii_case(ROOT_NAME) {
            return Ok(root.clone());
        }
        let path: Vec<String> = text.split(':').map(str::to_lowercase).collect();
        let is_named = |row: &&Arc<CompartmentRow>| {
            let mut chain = identity.chain(&row.id);
            let names = path.iter().rev().all(|name| {
                chain
                    .next()
                    .is_some_and(|row| row.parent.is_some() && row.name.to_lowercase() == *name)
            });
            // A path begins at the root, a single name may stand anywhere.
            names && (path.len() == 1 || chain.next().is_some_and(|row| row.parent.is_none()))
        };
        let mut found = identity
            .compartments
            .values()
            .filter(is_named)
            .filter(|row| {
                self.may(&snapshot, ctx, Operation::GetCompartment, &row.id)
                    || self.may(&snapshot, ctx, operation, &row.id)
            });
        match (found.next(), found.next()) {
            (Some(row), None) => Ok(row.id.clone()),
            (None, _) => Err(self.missing(ctx, operation, text)),
            (Some(_), Some(_)) => Err(Error::invalid_at(
                "compartmentId",
                "several compartments have this name; write the path from the root (`A:B`) or the OCID",
            )),
        }
    }

    /// Makes a compartment.
    ///
    /// # Errors
    /// 400, not found for the parent, 409 for a name that is taken.
    pub async fn create_compartment(
        &self,
        ctx: &OpCtx,
        details: oci::CreateCompartmentDetails,
        retry_token: Option<&str>,
    ) -> Result<Versioned<oci::Compartment>> {
        const OPERATION: Operation = Operation::CreateCompartment;
        let mut problems = Problems::default();
        check_name(&mut problems, &details.name);
        problems.description("description", &details.description);
        problems.tags(
            details.freeform_tags.as_ref(),
            details.defined_tags.as_ref(),
        );
        problems.done()?;
        let parent = self.resolve_compartment(ctx, OPERATION, &details.compartment_id)?;
        self.authorize_operation(ctx, OPERATION, &parent)?;
        let snapshot = Arc::clone(&self.state.load());
        if snapshot.identity.chain(&parent).count() > COMPARTMENT_DEPTH_MAX {
            return Err(Error::invalid_at(
                "compartmentId",
                format!("compartments may be nested {COMPARTMENT_DEPTH_MAX} levels deep"),
            ));
        }
        let id = Ocid::generate(ResourceKind::Compartment, "", &*self.entropy);
        let retry = self.retry_entry(ctx, OPERATION.name(), retry_token, id.as_str(), &details)?;
        if let Some(earlier) = self.earlier(ctx, retry.as_ref()).await? {
            return self.get_compartment(ctx, &earlier.resource);
        }
        let row = CompartmentRow {
            id,
            parent: Some(parent),
            name: details.name,
            description: details.description,
            freeform_tags: tags_text(details.freeform_tags.as_ref())?,
            defined_tags: tags_text(details.defined_tags.as_ref())?,
            created: ctx.now,
            updated: ctx.now,
            version: 1,
        };
        let shown = show(&row, Some(true));
        match self
            .change(
                ctx,
                OPERATION.name(),
                retry.clone(),
                vec![Change::InsertCompartment(row)],
            )
            .await
        {
            Ok(_) => Ok(shown),
            Err(StoreError::RetryTokenTaken) => match self.earlier(ctx, retry.as_ref()).await? {
                Some(earlier) => self.get_compartment(ctx, &earlier.resource),
                None => Err(StoreError::RetryTokenTaken.into()),
            },
            Err(error) => Err(error.into()),
        }
    }

    /// Lists compartments: of each only those that the caller may inspect.
    ///
    /// # Errors
    /// Not found when there is nothing that the caller may inspect in or below the named one.
    pub fn list_compartments(
        &self,
        ctx: &OpCtx,
        asked: &ListCompartments,
    ) -> Result<Page<oci::Compartment>> {
        const OPERATION: Operation = Operation::ListCompartments;
        self.refuse_keys(ctx)?;
        let parent = self.resolve_compartment(ctx, OPERATION, &asked.compartment_id)?;
        let snapshot = Arc::clone(&self.state.load());
        let below: Vec<&Arc<CompartmentRow>> = snapshot
            .identity
            .compartments
            .values()
            .filter(|row| is_below(&snapshot, row, &parent, asked))
            .filter(|row| self.may(&snapshot, ctx, OPERATION, &row.id))
            .collect();
        if below.is_empty() {
            // Not even the named one may be inspected: then it is not there.
            self.authorize_operation(ctx, OPERATION, &parent)?;
        }
        let items = below
            .into_iter()
            .filter(|row| {
                asked
                    .name
                    .as_ref()
                    .is_none_or(|name| row.name.to_lowercase() == name.to_lowercase())
                    && asked
                        .lifecycle_state
                        .as_ref()
                        .is_none_or(|state| state.eq_ignore_ascii_case("ACTIVE"))
            })
            .collect();
        let page = asked.page.cut(items, |row| SortKey {
            name: row.name.clone(),
            created_us: row.created.as_micros(),
            id: row.id.as_str().to_owned(),
        })?;
        Ok(page.map(|row| show(row, Some(true)).value))
    }

    /// Gets a compartment.
    ///
    /// # Errors
    /// Not found.
    pub fn get_compartment(&self, ctx: &OpCtx, id: &str) -> Result<Versioned<oci::Compartment>> {
        let row = self.find_compartment(ctx, Operation::GetCompartment, id)?;
        Ok(show(&row, Some(true)))
    }

    /// Changes name, description or tags. The root compartment keeps its name.
    ///
    /// # Errors
    /// 400, not found, 409 for a name that is taken, 412.
    pub async fn update_compartment(
        &self,
        ctx: &OpCtx,
        id: &str,
        details: oci::UpdateCompartmentDetails,
        if_match: Option<&str>,
    ) -> Result<Versioned<oci::Compartment>> {
        const OPERATION: Operation = Operation::UpdateCompartment;
        let mut problems = Problems::default();
        if let Some(name) = &details.name {
            check_name(&mut problems, name);
        }
        problems.description(
            "description",
            details.description.as_deref().unwrap_or_default(),
        );
        problems.tags(
            details.freeform_tags.as_ref(),
            details.defined_tags.as_ref(),
        );
        problems.done()?;
        for _ in 0..CHANGE_TRIES_MAX {
            let before = self.find_compartment(ctx, OPERATION, id)?;
            check_version(if_match, before.version)?;
            let mut row = (*before).clone();
            if let Some(name) = &details.name {
                if row.parent.is_none() {
                    return Err(Error::new(
                        ErrorKind::Conflict,
                        "the root compartment keeps its name",
                    ));
                }
                row.name.clone_from(name);
            }
            if let Some(text) = &details.description {
                row.description.clone_from(text);
            }
            if details.freeform_tags.is_some() {
                row.freeform_tags = tags_text(details.freeform_tags.as_ref())?;
            }
            if details.defined_tags.is_some() {
                row.defined_tags = tags_text(details.defined_tags.as_ref())?;
            }
            row.updated = ctx.now;
            row.version += 1;
            let shown = show(&row, Some(true));
            let change = Change::PutCompartment(row, before.version);
            match self.change(ctx, OPERATION.name(), None, vec![change]).await {
                Ok(_) => return Ok(shown),
                Err(StoreError::Stale) if if_match.is_none() => {}
                Err(StoreError::NotFound) => return Err(self.missing(ctx, OPERATION, id)),
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Stale.into())
    }

    /// Deletes an empty compartment.
    ///
    /// # Errors
    /// Not found; 409 `Conflict` when it still holds something, or is the root; 412.
    pub async fn delete_compartment(
        &self,
        ctx: &OpCtx,
        id: &str,
        if_match: Option<&str>,
    ) -> Result<()> {
        const OPERATION: Operation = Operation::DeleteCompartment;
        let row = self.find_compartment(ctx, OPERATION, id)?;
        check_version(if_match, row.version)?;
        if row.parent.is_none() {
            return Err(Error::new(
                ErrorKind::Conflict,
                "the root compartment cannot be deleted",
            ));
        }
        let change = Change::DeleteCompartment(row.id.clone(), row.version);
        match self.change(ctx, OPERATION.name(), None, vec![change]).await {
            Ok(_) => Ok(()),
            Err(StoreError::NotFound) => Err(self.missing(ctx, OPERATION, id)),
            Err(error) => Err(error.into()),
        }
    }

    fn find_compartment(
        &self,
        ctx: &OpCtx,
        operation: Operation,
        id: &str,
    ) -> Result<Arc<CompartmentRow>> {
        self.refuse_keys(ctx)?;
        let id = self.resolve_compartment(ctx, operation, id)?;
        let row = self.state.load().identity.compartments.get(&id).cloned();
        let row = row.ok_or_else(|| self.missing(ctx, operation, id.as_str()))?;
        self.authorize_operation(ctx, operation, &row.id)?;
        Ok(row)
    }
}

fn is_below(
    snapshot: &Snapshot,
    row: &CompartmentRow,
    parent: &Ocid,
    asked: &ListCompartments,
) -> bool {
    if row.id == *parent {
        return asked.include_root;
    }
    if asked.in_subtree {
        snapshot
            .identity
            .chain(&row.id)
            .any(|above| above.id == *parent)
    } else {
        row.parent.as_ref() == Some(parent)
    }
}

fn check_name(problems: &mut Problems, name: &str) {
    problems.name("name", name);
    if name.eq_ignore_ascii_case(ROOT_NAME) {
        problems.add(
            "name",
            "`root` names the root compartment; take another name",
        );
    }
}

pub(crate) fn check_version(if_match: Option<&str>, version: i64) -> Result<()> {
    match if_match {
        Some(asked) if !if_match_names(asked, version) => Err(Error::new(
            ErrorKind::PreconditionFailed,
            "the resource has another version than `if-match` names; read it again",
        )),
        _ => Ok(()),
    }
}

fn show(row: &CompartmentRow, is_accessible: Option<bool>) -> Versioned<oci::Compartment> {
    Versioned {
        value: oci::Compartment {
            id: row.id.clone(),
            compartment_id: row.parent.clone().unwrap_or_else(|| row.id.clone()),
            name: row.name.clone(),
            description: row.description.clone(),
            time_created: row.created,
            lifecycle_state: "ACTIVE".to_owned(),
            inactive_status: None,
            is_accessible,
            freeform_tags: read_tags(&row.freeform_tags),
            defined_tags: read_tags(&row.defined_tags),
        },
        etag: etag(row.version),
    }
}
