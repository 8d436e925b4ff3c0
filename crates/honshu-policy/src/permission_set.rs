//! Sets of permissions as bits, so that asking whether a rule speaks of one costs a load.

use crate::table::Permission;

const SET_WORDS: usize = 4;
const _: () = assert!(
    Permission::ALL.len() <= SET_WORDS * 64,
    "PermissionSet is too small for the table"
);

/// A set of permissions as bits, so that asking costs one load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct PermissionSet([u64; SET_WORDS]);

impl PermissionSet {
    /// The empty set.
    pub const EMPTY: PermissionSet = PermissionSet([0; SET_WORDS]);

    /// Adds a permission.
    pub fn insert(&mut self, permission: Permission) {
        let bit = permission as usize;
        self.0[bit / 64] |= 1 << (bit % 64);
    }

    /// Whether the permission is in the set.
    #[must_use]
    pub fn contains(&self, permission: Permission) -> bool {
        let bit = permission as usize;
        self.0[bit / 64] & (1 << (bit % 64)) != 0
    }

    /// Adds every permission of the other set.
    pub fn union_with(&mut self, other: &PermissionSet) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine |= theirs;
        }
    }

    /// Whether nothing is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0 == [0; SET_WORDS]
    }

    /// The permissions in the order of the table.
    pub fn iter(&self) -> impl Iterator<Item = Permission> + '_ {
        Permission::ALL
            .iter()
            .copied()
            .filter(|permission| self.contains(*permission))
    }
}

impl FromIterator<Permission> for PermissionSet {
    fn from_iter<I: IntoIterator<Item = Permission>>(permissions: I) -> Self {
        let mut set = PermissionSet::EMPTY;
        for permission in permissions {
            set.insert(permission);
        }
        set
    }
}
