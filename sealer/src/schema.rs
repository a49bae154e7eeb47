//! No I/O. The versions of a database's schema, and what leads from one to the next.
//!
//! Owns [`Version`] and [`way`]. A program knows the versions up to its own, oldest first, each with the tables that it has
//! and the statements that make it out of the one before. Promises: a version that is not among them has no way here, and a
//! newer one is told from one that never was. [`crate::sqlite`] goes the way: a copy of the file first, then one
//! transaction. There is one version today, so that no file has a way to go.

use crate::store::Role;

/// One version of the schema.
pub(crate) struct Version {
    /// Counts from 1 without a gap.
    pub(crate) number: i32,
    /// The statement of each table, in the order of the tables' names.
    pub(crate) tables: fn(Role) -> Vec<&'static str>,
    /// What makes a file of this version out of one of the version before; nothing for the first.
    pub(crate) steps: fn(Role) -> Vec<&'static str>,
}

/// What is to be done with a file of some version.
pub(crate) enum Way<'a> {
    /// It is used as it is.
    Here(&'a Version),
    /// It is of `from`, and goes up through each of `through`.
    Up {
        from: &'a Version,
        through: &'a [Version],
    },
    /// A newer program wrote it.
    Newer,
    /// No program did.
    Nowhere,
}

/// The way of a file of version `found` to the last of `known`.
pub(crate) fn way(known: &[Version], found: i32) -> Way<'_> {
    let Some(newest) = known.last() else {
        return Way::Nowhere;
    };
    if found > newest.number {
        return Way::Newer;
    }
    match known.iter().position(|version| version.number == found) {
        None => Way::Nowhere,
        Some(at) => match known.split_at(at + 1) {
            (_, []) => Way::Here(newest),
            (before, through) => before
                .last()
                .map_or(Way::Nowhere, |from| Way::Up { from, through }),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_goes_up_through_each_later_one_and_no_other_has_a_way() {
        let version = |number| Version {
            number,
            tables: |_| Vec::new(),
            steps: |_| Vec::new(),
        };
        let known = [1, 2, 3].map(version);
        let through = |found| match way(&known, found) {
            Way::Up { from, through } => {
                assert_eq!(from.number, found);
                through.iter().map(|v| v.number).collect()
            }
            Way::Here(version) => vec![-version.number],
            Way::Newer => vec![100],
            Way::Nowhere => vec![0],
        };
        assert_eq!(through(1), [2, 3]);
        assert_eq!(through(2), [3]);
        assert_eq!(through(3), [-3]);
        assert_eq!(through(4), [100]);
        assert_eq!((through(0), through(-1)), (vec![0], vec![0]));
        assert!(matches!(way(&[], 1), Way::Nowhere));
    }
}
