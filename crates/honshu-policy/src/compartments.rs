//! The compartments of a tenancy as a tree, for inheritance and for paths.

use std::collections::HashMap;
use std::sync::Arc;

use crate::limits::COMPARTMENT_DEPTH_MAX;
use crate::value::fold;

/// A compartment as the caller knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compartment {
    /// Its OCID.
    pub id: Arc<str>,
    /// OCID of the compartment or tenancy that it is in.
    pub parent_id: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

/// The tenancy: its root compartment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenancy {
    /// Its OCID, which is also that of the root compartment.
    pub id: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

pub(crate) type Node = u32;

pub(crate) const ROOT: Node = 0;

#[derive(Debug)]
struct Entry {
    id: Arc<str>,
    name: Arc<str>,
    /// None for the root.
    parent: Option<Node>,
    children: Vec<Node>,
}

/// Only what hangs on the root: a compartment without a way up is not in it.
#[derive(Debug)]
pub(crate) struct CompartmentTree {
    entries: Vec<Entry>,
    by_id: HashMap<Box<str>, Node>,
}

impl CompartmentTree {
    pub(crate) fn new(tenancy: &Tenancy, compartments: &[Compartment]) -> CompartmentTree {
        let mut children: HashMap<&str, Vec<&Compartment>> = HashMap::new();
        for compartment in compartments {
            children
                .entry(&compartment.parent_id)
                .or_default()
                .push(compartment);
        }
        let root = Entry {
            id: tenancy.id.clone(),
            name: tenancy.name.clone(),
            parent: None,
            children: Vec::new(),
        };
        let mut tree = CompartmentTree {
            entries: vec![root],
            by_id: HashMap::new(),
        };
        tree.by_id.insert(fold(&tenancy.id).into(), ROOT);
        // Breadth first from the root; an OCID counts once, so a cycle cannot come back.
        let mut level = vec![ROOT];
        for _ in 0..COMPARTMENT_DEPTH_MAX {
            let mut below = Vec::new();
            for parent in level {
                let id = tree.entries[parent as usize].id.clone();
                for compartment in children.get(&*id).into_iter().flatten() {
                    let Ok(node) = Node::try_from(tree.entries.len()) else {
                        continue;
                    };
                    let key: Box<str> = fold(&compartment.id).into();
                    if tree.by_id.contains_key(&key) {
                        continue;
                    }
                    tree.by_id.insert(key, node);
                    tree.entries.push(Entry {
                        id: compartment.id.clone(),
                        name: compartment.name.clone(),
                        parent: Some(parent),
                        children: Vec::new(),
                    });
                    tree.entries[parent as usize].children.push(node);
                    below.push(node);
                }
            }
            level = below;
        }
        tree
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn find(&self, id: &str) -> Option<Node> {
        self.by_id.get(&*fold(id)).copied()
    }

    pub(crate) fn id(&self, node: Node) -> &Arc<str> {
        &self.entries[node as usize].id
    }

    pub(crate) fn name(&self, node: Node) -> &str {
        &self.entries[node as usize].name
    }

    /// The node, then what it is in, up to the root.
    pub(crate) fn chain(&self, node: Node) -> impl Iterator<Item = Node> + '_ {
        std::iter::successors(Some(node), |node| self.entries[*node as usize].parent)
    }

    pub(crate) fn is_within(&self, node: Node, ancestor: Node) -> bool {
        self.chain(node).any(|above| above == ancestor)
    }

    /// Follows a path of names down. The exact name counts first, then one that differs only in
    /// case if there is but one.
    pub(crate) fn resolve(&self, from: Node, path: &[String]) -> Option<Node> {
        let mut node = from;
        for (index, name) in path.iter().enumerate() {
            let child = self.child(node, name);
            // A policy may also call the compartment that it is attached to by its own name.
            let own = index == 0
                && child.is_none()
                && from != ROOT
                && fold(self.name(from)) == fold(name);
            if !own {
                node = child?;
            }
        }
        Some(node)
    }

    fn child(&self, node: Node, name: &str) -> Option<Node> {
        let children = &self.entries[node as usize].children;
        let exact = children.iter().find(|child| self.name(**child) == name);
        if let Some(exact) = exact {
            return Some(*exact);
        }
        let folded = fold(name);
        let mut near = children
            .iter()
            .filter(|child| fold(self.name(**child)) == folded);
        match (near.next(), near.next()) {
            (Some(only), None) => Some(*only),
            _ => None,
        }
    }

    /// The node as a location of a statement, such as `compartment A:B`.
    pub(crate) fn location(&self, node: Node) -> crate::ast::Location {
        if node == ROOT {
            return crate::ast::Location::Tenancy;
        }
        let mut path: Vec<String> = self
            .chain(node)
            .filter(|above| *above != ROOT)
            .map(|above| self.name(above).to_owned())
            .collect();
        path.reverse();
        crate::ast::Location::Compartment(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> CompartmentTree {
        let compartment = |id: &str, parent: &str, name: &str| Compartment {
            id: id.into(),
            parent_id: parent.into(),
            name: name.into(),
        };
        let tenancy = Tenancy {
            id: "t".into(),
            name: "root".into(),
        };
        CompartmentTree::new(
            &tenancy,
            &[
                compartment("c", "b", "Leaf"),
                compartment("a", "t", "営業"),
                compartment("b", "a", "Tokyo"),
                compartment("d1", "t", "Dev"),
                compartment("d2", "t", "dev"),
                compartment("x", "y", "Loop"),
                compartment("y", "x", "Loop"),
            ],
        )
    }

    #[test]
    fn paths_go_down_by_names_in_any_case() {
        let tree = tree();
        let resolve = |from: &str, path: &[&str]| {
            let path: Vec<String> = path.iter().map(ToString::to_string).collect();
            let node = tree.resolve(tree.find(from).unwrap(), &path);
            node.map(|node| tree.id(node).to_string())
        };
        assert_eq!(
            resolve("t", &["営業", "tokyo", "LEAF"]).as_deref(),
            Some("c")
        );
        assert_eq!(resolve("a", &["Tokyo"]).as_deref(), Some("b"));
        assert_eq!(resolve("b", &["Tokyo"]).as_deref(), Some("b"));
        assert_eq!(resolve("b", &["Tokyo", "Leaf"]).as_deref(), Some("c"));
        assert_eq!(resolve("t", &["Dev"]).as_deref(), Some("d1"));
        assert_eq!(resolve("t", &["DEV"]), None);
        assert_eq!(resolve("t", &["Leaf"]), None);
    }

    #[test]
    fn what_does_not_hang_on_the_root_is_unknown() {
        let tree = tree();
        assert_eq!(tree.find("x"), None);
        assert_eq!(tree.len(), 6);
        assert!(tree.is_within(tree.find("c").unwrap(), tree.find("a").unwrap()));
        assert!(!tree.is_within(tree.find("a").unwrap(), tree.find("c").unwrap()));
    }
}
