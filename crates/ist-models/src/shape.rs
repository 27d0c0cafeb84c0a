//! What a model is and what a batch takes of memory on it, with nothing loaded.

use ist_core::Footprint;
use ist_core::burn::tensor::DType;
use ist_core::gradients::count_parameters;
use ist_peft::{Adapter, MethodConfig, Outline, Roles, Site, SiteKind, TokenCost};

use crate::TokenBatch;
use crate::decoder::{DecoderConfig, layout, memory};

/// What a model is, from its `config.json` alone.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Layers.
    pub num_layers: usize,
    /// Tokens of the vocabulary.
    pub vocab_size: usize,
    /// Positions the model was made for.
    pub max_position_embeddings: usize,
    /// Scalars of the whole model.
    pub parameters: usize,
    /// Modules an adapter can sit on.
    pub sites: Vec<Site>,
    /// The names of its modules by the part they play.
    pub roles: &'static Roles,
    config: DecoderConfig,
    /// Whether head and embedding are two modules that share one table.
    shares_table: bool,
}

impl Shape {
    /// What it tells of itself to whoever puts adapters on it.
    pub fn outline(&self) -> Outline {
        Outline {
            model_type: self.config.model_type,
            roles: self.roles,
            num_layers: self.num_layers,
            shared_head: layout::shared_head(&self.config),
        }
    }

    /// The shape with a module of its own for a head that is the embedding. Their frozen table
    /// stays one.
    #[must_use]
    pub fn untied(&self) -> Self {
        let mut config = self.config.clone();
        config.set_tied(false);
        Self { parameters: self.parameters, shares_table: true, ..Self::of(config) }
    }

    /// The shape of a model of that configuration.
    pub fn of(config: DecoderConfig) -> Self {
        Self {
            num_layers: config.num_hidden_layers,
            vocab_size: config.vocab_size,
            max_position_embeddings: config.context(),
            parameters: layout::parameter_count(&config),
            sites: layout::sites(&config),
            roles: config.roles,
            config,
            shares_table: false,
        }
    }

    /// Bytes of the weights kept as `storage`, where i8 stands for the layers' matrices in eight
    /// bits.
    pub fn weight_bytes(&self, storage: DType) -> u64 {
        if !self.shares_table {
            return layout::weight_bytes(&self.config, storage);
        }
        let mut config = self.config.clone();
        config.set_tied(true);
        layout::weight_bytes(&config, storage)
    }

    /// Whether one of the modules with adapters lies below the layers: the embedding, or a norm
    /// behind it.
    ///
    /// Then the input of the lowest layer needs a gradient too.
    pub fn trains_below_layers<'s>(&self, adapted: impl IntoIterator<Item = &'s Site>) -> bool {
        // The modules stand in the order of the forward pass.
        let below = self.sites.iter().take_while(|site| site.layer.is_none());
        let below: Vec<&str> = below.map(|site| site.path.as_str()).collect();
        adapted.into_iter().any(|site| below.contains(&site.path.as_str()))
    }

    /// What a batch takes of memory, on a model that need not exist.
    pub fn footprint(&self, resident: Resident, batch: BatchShape) -> Footprint {
        memory::footprint(&self.config, resident, batch)
    }
}

/// The sizes of a rectangular batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchShape {
    /// Records.
    pub rows: usize,
    /// Tokens of the longest.
    pub sequence: usize,
    /// Tokens that are predicted, of all records.
    pub predicted: usize,
}

impl BatchShape {
    /// A batch of full rows in which every token but the first is predicted.
    pub fn full(rows: usize, sequence: usize) -> Self {
        Self { rows, sequence, predicted: rows * sequence.saturating_sub(1) }
    }

    /// Tokens, padding included.
    pub fn tokens(&self) -> usize {
        self.rows.saturating_mul(self.sequence)
    }
}

impl From<&TokenBatch> for BatchShape {
    fn from(batch: &TokenBatch) -> Self {
        let [rows, sequence] = batch.input_ids.dims();
        Self { rows, sequence, predicted: batch.predicted_tokens() }
    }
}

/// A module with an adapter on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdaptedSite {
    /// The module.
    pub site: Site,
    /// What it takes for a token.
    pub cost: TokenCost,
    /// Scalars of the adapter.
    pub parameters: usize,
}

impl AdaptedSite {
    /// The adapter of that configuration on `site`, which need not exist yet.
    pub fn planned(config: &dyn MethodConfig, site: &Site) -> Self {
        let cost = if site.kind == SiteKind::Linear {
            config.token_cost(site)
        } else {
            TokenCost::default()
        };
        Self { site: site.clone(), cost, parameters: config.parameters(site) }
    }

    /// That adapter on `site`.
    pub fn of<A: Adapter>(adapter: &A, site: Site) -> Self {
        let cost = if site.kind == SiteKind::Linear {
            adapter.view().token_cost(&site)
        } else {
            TokenCost::default()
        };
        Self { site, cost, parameters: count_parameters(adapter) }
    }
}

/// A model as far as its footprint depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Resident<'a> {
    /// The modules with adapters.
    pub adapted: &'a [AdaptedSite],
    /// What the frozen weights are stored as; i8 for the layers' matrices in eight bits.
    pub storage: DType,
    /// What is computed in.
    pub arithmetic: DType,
}
