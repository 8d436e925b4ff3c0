//! The tenancy and its regions.

use honshu_domain::{Ocid, Result, known_region_key};
use honshu_policy::Operation;
use honshu_store::{Change, TenancyRow};
use honshu_wire::oci;

use crate::context::OpCtx;
use crate::control::Control;

impl Control {
    /// Gets the tenancy.
    ///
    /// # Errors
    /// Not found.
    pub fn get_tenancy(&self, ctx: &OpCtx, id: &str) -> Result<oci::Tenancy> {
        const OPERATION: Operation = Operation::GetTenancy;
        let row = self.find_tenancy(ctx, OPERATION, id)?;
        Ok(self.show_tenancy(row))
    }

    /// Turns deny statements on or off. It acts on this node when this returns.
    ///
    /// # Errors
    /// Not found.
    pub async fn update_tenancy(
        &self,
        ctx: &OpCtx,
        id: &str,
        details: oci::UpdateTenancyDetails,
    ) -> Result<oci::Tenancy> {
        const OPERATION: Operation = Operation::UpdateTenancy;
        let mut row = self.find_tenancy(ctx, OPERATION, id)?;
        if let Some(deny_enabled) = details.is_deny_enabled
            && deny_enabled != row.deny_enabled
        {
            row.deny_enabled = deny_enabled;
            let change = Change::PutTenancy(row.clone());
            self.change(ctx, OPERATION.name(), None, vec![change])
                .await?;
        }
        Ok(self.show_tenancy(row))
    }

    fn show_tenancy(&self, row: TenancyRow) -> oci::Tenancy {
        oci::Tenancy {
            id: row.id,
            name: row.name,
            description: None,
            home_region_key: self.key_of(&row.home_region),
            is_deny_enabled: row.deny_enabled,
            upi_idcs_compatibility_layer_endpoint: None,
            freeform_tags: oci::FreeformTags::new(),
            defined_tags: oci::DefinedTags::new(),
        }
    }

    /// The regions that this process serves.
    ///
    /// # Errors
    /// Unauthenticated for a key.
    pub fn list_regions(&self, ctx: &OpCtx) -> Result<Vec<oci::Region>> {
        // Every signed caller may know the regions: they are in the configuration of each client.
        self.refuse_keys(ctx)?;
        Ok(self
            .regions
            .iter()
            .map(|region| oci::Region {
                key: region.key().to_owned(),
                name: region.name().to_owned(),
            })
            .collect())
    }

    /// The regions that the tenancy uses: all that this process serves.
    ///
    /// # Errors
    /// Not found.
    pub fn list_region_subscriptions(
        &self,
        ctx: &OpCtx,
        tenancy: &str,
    ) -> Result<Vec<oci::RegionSubscription>> {
        let row = self.find_tenancy(ctx, Operation::ListRegionSubscriptions, tenancy)?;
        Ok(self
            .regions
            .iter()
            .map(|region| oci::RegionSubscription {
                region_key: region.key().to_owned(),
                region_name: region.name().to_owned(),
                status: "READY".to_owned(),
                is_home_region: region.name() == row.home_region,
            })
            .collect())
    }

    /// The tenancy's id, which is also the root compartment's; `None` before `init`.
    pub fn tenancy_id(&self) -> Option<Ocid> {
        self.state.load().identity.root().cloned()
    }

    fn find_tenancy(&self, ctx: &OpCtx, operation: Operation, id: &str) -> Result<TenancyRow> {
        self.refuse_keys(ctx)?;
        let row = self.state.load().identity.tenancy.clone();
        let row = row
            .filter(|row| row.id.as_str() == id)
            .ok_or_else(|| self.missing(ctx, operation, id))?;
        self.authorize_operation(ctx, operation, &row.id)?;
        Ok(row)
    }

    fn key_of(&self, name: &str) -> String {
        self.regions
            .iter()
            .find(|region| region.name() == name)
            .map(|region| region.key().to_owned())
            .or_else(|| known_region_key(name).map(str::to_owned))
            .unwrap_or_else(|| name.to_ascii_uppercase())
    }
}
