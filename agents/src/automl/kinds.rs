//! The registry of the kinds of data that the engine has pipelines for: one Python module a kind, and the candidates.

/// A kind of data.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// Its name in `dataset.json`.
    pub name: &'static str,
    /// The text of `kind_<name>.py`, whose class `Data` is a `Kind` of `mlgym_model.py`.
    pub module: &'static str,
    /// The candidates by the task in `dataset.json`, as the text of a knowledge file.
    pub knowledge: &'static [(&'static str, &'static str)],
}

/// All kinds.
pub const KINDS: &[Kind] = &[TABULAR, IMAGE, FORECAST];

const TABULAR: Kind = Kind {
    name: "tabular",
    module: include_str!("python/kinds/kind_tabular.py"),
    knowledge: &[
        ("classification", include_str!("knowledge/tabular-classification.toml")),
        ("regression", include_str!("knowledge/tabular-regression.toml")),
    ],
};

const IMAGE: Kind = Kind {
    name: "image",
    module: include_str!("python/kinds/kind_image.py"),
    knowledge: &[("classification", include_str!("knowledge/image-classification.toml"))],
};

const FORECAST: Kind = Kind {
    name: "forecast",
    module: include_str!("python/kinds/kind_forecast.py"),
    knowledge: &[("regression", include_str!("knowledge/forecast.toml"))],
};

impl Kind {
    /// Finds a kind by its name.
    pub fn find(name: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.name == name)
    }

    /// The name of its module's file.
    pub fn file(&self) -> String {
        format!("kind_{}.py", self.name)
    }
}
