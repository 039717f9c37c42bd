//! Which unit depends on which, and the cycles among them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The dependencies between the units of a crate.
#[derive(Default)]
pub(super) struct Graph {
    /// For each unit those that it depends on, each with the first place that shows it.
    edges: BTreeMap<String, BTreeMap<String, String>>,
}

/// Units that all reach each other.
pub(super) struct Cycle {
    pub(super) units: Vec<String>,
    /// A shortest way from one of them back to it.
    pub(super) steps: Vec<Step>,
}

/// A unit, and the place where it depends on the next one.
#[derive(Clone)]
pub(super) struct Step {
    pub(super) from: String,
    pub(super) place: String,
}

impl Graph {
    /// Notes a dependency, unless it is one on the unit itself.
    pub(super) fn add(&mut self, from: &str, to: &str, place: impl FnOnce() -> String) {
        if from != to {
            let to_others = self.edges.entry(from.to_owned()).or_default();
            to_others.entry(to.to_owned()).or_insert_with(place);
        }
    }

    /// All cycles, those of the same units as one.
    pub(super) fn cycles(&self) -> Vec<Cycle> {
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        let mut cycles = Vec::new();
        for start in self.edges.keys() {
            let reached = self.reached(start);
            if seen.contains(start.as_str()) || !reached.contains(start.as_str()) {
                continue;
            }
            let units: Vec<_> =
                reached.into_iter().filter(|unit| self.reached(unit).contains(start.as_str())).collect();
            seen.extend(&units);
            let ways = units.iter().filter_map(|unit| self.way_back(unit));
            let steps = ways.min_by_key(Vec::len).unwrap_or_default();
            cycles.push(Cycle { units: units.into_iter().map(str::to_owned).collect(), steps });
        }
        cycles
    }

    fn next<'a>(&'a self, unit: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.edges.get(unit).into_iter().flatten().map(|(to, place)| (to.as_str(), place.as_str()))
    }

    /// The units that can be reached in one step or more.
    fn reached(&self, start: &str) -> BTreeSet<&str> {
        let mut reached = BTreeSet::new();
        let mut open: Vec<&str> = self.next(start).map(|(to, _)| to).collect();
        while let Some(unit) = open.pop() {
            if reached.insert(unit) {
                open.extend(self.next(unit).map(|(to, _)| to));
            }
        }
        reached
    }

    /// A shortest way from a unit to itself.
    fn way_back(&self, start: &str) -> Option<Vec<Step>> {
        let mut seen = BTreeSet::new();
        let mut open = VecDeque::from([(start, Vec::new())]);
        while let Some((unit, steps)) = open.pop_front() {
            for (to, place) in self.next(unit) {
                let mut steps: Vec<Step> = steps.clone();
                steps.push(Step { from: unit.to_owned(), place: place.to_owned() });
                if to == start {
                    return Some(steps);
                }
                if seen.insert(to) {
                    open.push_back((to, steps));
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cycles(edges: &[(&str, &str)]) -> Vec<(String, String)> {
        let mut graph = Graph::default();
        for (from, to) in edges {
            graph.add(from, to, || format!("{from}.rs:1"));
        }
        let way = |steps: &[Step]| steps.iter().map(|step| step.from.as_str()).collect::<Vec<_>>().join(" ");
        let text = |cycle: Cycle| (cycle.units.join(" "), way(&cycle.steps));
        graph.cycles().into_iter().map(text).collect()
    }

    fn owned(cycles: &[(&str, &str)]) -> Vec<(String, String)> {
        cycles.iter().map(|(units, way)| ((*units).to_owned(), (*way).to_owned())).collect()
    }

    #[test]
    fn a_graph_without_cycles_has_none() {
        assert_eq!(cycles(&[("a", "b"), ("b", "c"), ("a", "c"), ("a", "a")]), []);
    }

    #[test]
    fn cycles_that_share_a_unit_are_one_with_its_shortest_way() {
        let edges = [("a", "b"), ("b", "c"), ("c", "a"), ("c", "d"), ("d", "c"), ("d", "e")];
        assert_eq!(cycles(&edges), owned(&[("a b c d", "c d")]));
    }

    #[test]
    fn cycles_apart_are_several() {
        let edges = [("a", "b"), ("b", "a"), ("b", "c"), ("c", "d"), ("d", "c")];
        assert_eq!(cycles(&edges), owned(&[("a b", "a b"), ("c d", "c d")]));
    }
}
