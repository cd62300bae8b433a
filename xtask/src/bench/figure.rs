use super::pairs::Spread;
use serde::Serialize;

/// One line of the result. In JSON: an array of these.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct Figure {
    /// Which benchmark, and which of its cases: `B1.disk.qd32`.
    pub(super) id: String,
    /// What is measured.
    pub(super) measure: String,
    /// What it is measured against.
    pub(super) peer: String,
    /// The median; none where it could not be measured.
    pub(super) value: Option<f64>,
    /// Smallest and largest of the pairs.
    pub(super) spread: Option<(f64, f64)>,
    /// Of `value`.
    pub(super) unit: &'static str,
    /// What design section 13 asks for.
    pub(super) goal: Goal,
    /// None where there is no value or no goal.
    pub(super) met: Option<bool>,
    /// Both sides in absolute numbers, or why there is no value.
    pub(super) note: String,
}

/// What a value should be.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Goal {
    /// No less than this.
    AtLeast(f64),
    /// No more than this.
    AtMost(f64),
    /// Shown only.
    None,
}

impl Goal {
    fn is_met(self, value: f64) -> Option<bool> {
        match self {
            Self::AtLeast(least) => Some(value >= least),
            Self::AtMost(most) => Some(value <= most),
            Self::None => None,
        }
    }
}

impl std::fmt::Display for Goal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtLeast(least) => write!(f, "≥ {least}"),
            Self::AtMost(most) => write!(f, "≤ {most}"),
            Self::None => f.write_str("–"),
        }
    }
}

impl Serialize for Goal {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => serializer.serialize_none(),
            Self::AtLeast(_) | Self::AtMost(_) => serializer.collect_str(self),
        }
    }
}

/// What a figure is about, before it is measured.
#[derive(Clone, Debug)]
pub(super) struct About {
    pub(super) id: String,
    pub(super) measure: String,
    pub(super) peer: String,
    pub(super) unit: &'static str,
    pub(super) goal: Goal,
}

impl About {
    /// As measured.
    pub(super) fn measured(self, spread: Spread, note: String) -> Figure {
        let Self { id, measure, peer, unit, goal } = self;
        let value = Some(spread.median);
        let met = goal.is_met(spread.median);
        let spread = Some((spread.least, spread.most));
        Figure { id, measure, peer, value, spread, unit, goal, met, note }
    }

    /// Not measured, and why.
    pub(super) fn skipped(self, why: &str) -> Figure {
        let Self { id, measure, peer, unit, goal } = self;
        let note = format!("SKIPPED: {why}");
        eprintln!("{id}: {note}");
        Figure { id, measure, peer, value: None, spread: None, unit, goal, met: None, note }
    }
}

/// For people.
pub(super) fn table(figures: &[Figure]) -> String {
    let mut text = String::new();
    for figure in figures {
        let value = match (figure.value, figure.spread) {
            (Some(value), Some((least, most))) => {
                format!("{value:.2} {} ({least:.2} – {most:.2})", figure.unit)
            }
            (Some(value), None) => format!("{value:.2} {}", figure.unit),
            (None, _) => "not measured".to_owned(),
        };
        let met = match figure.met {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "",
        };
        let Figure { id, measure, peer, goal, note, .. } = figure;
        text.push_str(&format!("{id:<20} {value:<34} goal {goal:<8} {met}\n"));
        text.push_str(&format!("{:<20} {measure}; against {peer}\n{:<20} {note}\n", "", ""));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{About, Goal, Spread, table};

    fn about(goal: Goal) -> About {
        About {
            id: "B0.x".into(),
            measure: "something".into(),
            peer: "something else".into(),
            unit: "ratio",
            goal,
        }
    }

    #[test]
    fn a_goal_is_met_at_its_edge_and_missed_beyond() {
        let at = |goal, median| {
            let spread = Spread { median, least: median, most: median };
            about(goal).measured(spread, String::new()).met
        };
        assert_eq!(at(Goal::AtLeast(0.95), 0.95), Some(true));
        assert_eq!(at(Goal::AtLeast(0.95), 0.94), Some(false));
        assert_eq!(at(Goal::AtMost(100.0), 100.0), Some(true));
        assert_eq!(at(Goal::AtMost(100.0), 101.0), Some(false));
        assert_eq!(at(Goal::None, 1.0), None);
    }

    #[test]
    fn json_has_the_promised_fields_and_nulls_where_nothing_was_measured() {
        let spread = Spread { median: 1.5, least: 1.0, most: 2.0 };
        let figures = [
            about(Goal::AtLeast(1.0)).measured(spread, "n".into()),
            about(Goal::None).skipped("w"),
        ];
        let json = serde_json::to_value(&figures).expect("plain data");
        for field in ["id", "peer", "value", "unit", "goal", "met"] {
            assert!(json[0][field] != serde_json::Value::Null, "{field}");
        }
        assert_eq!(json[0]["goal"], "≥ 1");
        assert_eq!(json[1]["value"], serde_json::Value::Null);
        assert!(table(&figures).contains("not measured"));
    }
}
