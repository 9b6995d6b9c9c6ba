//! A page of Prometheus text, written as Python's client writes it.

use std::fmt::Write as _;

use crate::simulator::stats::Histogram;

/// A page under construction.
pub(super) struct Page<'a> {
    pub(super) text: String,
    pub(super) model: &'a str,
}

// === impl Page ===

impl<'a> Page<'a> {
    pub(super) fn new(model: &'a str) -> Self {
        Self { text: String::new(), model }
    }

    /// A family's two comment lines.
    pub(super) fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP vllm:{name} {help}"));
        self.line(format_args!("# TYPE vllm:{name} {kind}"));
    }

    /// Numbers as Python prints floats: `3.0`, not `3`.
    pub(super) fn sample(&mut self, name: &str, labels: &str, value: f64) {
        self.line(format_args!("vllm:{name}{{{labels}}} {value:?}"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.text, "{line}").expect("writing to a String cannot fail");
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.head(name, "gauge", help);
        let labels = format!("engine=\"0\",model_name=\"{}\"", self.model);
        self.sample(name, &labels, value);
    }

    pub(super) fn counter(&mut self, name: &str, help: &str, value: f64) {
        self.head(name, "counter", help);
        let labels = format!("engine=\"0\",model_name=\"{}\"", self.model);
        self.sample(name, &labels, value);
    }

    /// One family (name, type, help) with a label of its own.
    pub(super) fn labelled(
        &mut self,
        family: (&str, &str, &str),
        label: &str,
        values: &[(&str, f64)],
    ) {
        let (name, kind, help) = family;
        self.head(name, kind, help);
        for (of_label, value) in values {
            let own = format!("{label}=\"{of_label}\"");
            let model = format!("model_name=\"{}\"", self.model);
            // Labels are sorted by name.
            let (first, second) = if label < "model_name" { (own, model) } else { (model, own) };
            self.sample(name, &format!("engine=\"0\",{first},{second}"), *value);
        }
    }

    pub(super) fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, "histogram", help);
        let mut below = 0;
        let bounds = histogram.bounds.iter().map(|bound| format!("{bound:?}"));
        let bounds = bounds.chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(&histogram.counts) {
            below += count;
            let labels = format!("engine=\"0\",le=\"{bound}\",model_name=\"{}\"", self.model);
            self.sample(&format!("{name}_bucket"), &labels, below as f64);
        }
        let labels = format!("engine=\"0\",model_name=\"{}\"", self.model);
        self.sample(&format!("{name}_count"), &labels, below as f64);
        self.sample(&format!("{name}_sum"), &labels, histogram.sum);
    }
}
