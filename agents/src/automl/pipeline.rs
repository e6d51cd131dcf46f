//! The pipeline from a request to a submission: read the request, draw plans, carry them out and measure them, choose,
//! check what was chosen, and go round again with what was learned where that fails.
//!
//! Every stage ends in a verdict in the journal. What a model says is a proposal; what counts was run. Without a model the
//! plans come from the knowledge base and every other stage is the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use mlgym::{AgentError, Context};
use mlgym_journal::{Judge, Outcome, Verdict, VerdictStage};
use mlgym_tasks::Task;
use serde_json::json;

use crate::automl::ask::{AskError, Question};
use crate::automl::constraint::Constraint;
use crate::automl::engine::{Dataset, Engine, Stop};
use crate::automl::evidence::{Evidence, retrieve};
use crate::automl::judge::{self, Standing};
use crate::automl::knowledge::{Candidate, Knowledge, Profile};
use crate::automl::plan::{Execution, Trained};
use crate::automl::planning::{self, Case, Planned};
use crate::automl::scripts::slug;
use crate::automl::search::{self, Attempt, Branch, Demands};
use crate::automl::{prompts, request};
use crate::memory::{Experience, Member, Memory, Recollection, Traits};
use crate::models::Model;

/// How the pipeline is to work.
#[derive(Debug, Clone)]
pub struct Options {
    /// Plans that are drawn in a round; 3 with a model and 1 without, unless somebody says otherwise.
    pub plans: Option<usize>,
    /// Rounds of revision after the first.
    pub rounds: u32,
    /// What the user demands of the result.
    pub constraints: Vec<Constraint>,
    /// What worked before; nothing is recalled or remembered without one.
    pub memory: Option<Arc<dyn Memory>>,
}

impl Default for Options {
    fn default() -> Self {
        Self { plans: None, rounds: 3, constraints: Vec::new(), memory: None }
    }
}

impl Options {
    /// The libraries that may not be used.
    fn forbidden(&self) -> Vec<String> {
        let library = |constraint: &Constraint| match constraint {
            Constraint::Forbidden { library } => Some(library.clone()),
            _ => None,
        };
        self.constraints.iter().filter_map(library).collect()
    }
}

/// Plans that are drawn with a model where nobody says otherwise.
const PLANS: usize = 3;

/// Where the submission lies that is to be handed in.
#[derive(Debug)]
pub(crate) enum Winner {
    /// In the environment that the pipeline was given.
    Trunk,
    /// In a fork of it.
    Fork(Box<Branch>),
    /// Nowhere yet: there is no pipeline for this task, for this reason, and a model must find its way.
    NoPipeline(String),
}

/// One run of the pipeline.
#[derive(Debug)]
pub(crate) struct Pipeline<'a> {
    pub(crate) context: &'a Context,
    pub(crate) task: Task,
    pub(crate) model: Option<Arc<dyn Model>>,
    pub(crate) options: &'a Options,
}

/// What is known once the data has been looked at.
struct Known {
    dataset: Dataset,
    knowledge: Knowledge,
    profile: Profile,
    request: request::ParsedRequest,
    evidence: Vec<Evidence>,
    recollection: Recollection,
    traits: Traits,
}

impl Known {
    /// What a plan came to, as it is remembered.
    fn experience(&self, attempt: &Attempt, validated: Option<f64>) -> Option<Experience> {
        let execution = attempt.execution.as_ref()?;
        let candidates = &attempt.planned.plan.candidates;
        let of_module =
            |module: &str| candidates.iter().find(|candidate| slug(&candidate.name) == slug(module));
        // A candidate of the knowledge base needs no recipe; a skill is none of it, though it was added for this run.
        let recipe = |candidate: &Candidate| {
            let is_known = self.knowledge.candidates.iter().any(|known| known.name == candidate.name);
            let is_skill = self.recollection.skills().iter().any(|skill| skill.model == candidate.model);
            (!is_known || is_skill).then(|| candidate.clone())
        };
        let member = |(trained, weight): (&Trained, f64)| {
            let candidate = of_module(&trained.candidate);
            Member {
                name: candidate.map_or_else(|| trained.name.clone(), |candidate| candidate.name.clone()),
                weight,
                recipe: candidate.and_then(recipe),
            }
        };
        Some(Experience {
            traits: self.traits.clone(),
            plan: attempt.planned.plan.name.clone(),
            validated,
            members: execution.members().map(member).collect(),
            broken: execution.broken.iter().filter_map(|broken| recipe(of_module(&broken.name)?)).collect(),
        })
    }
}

impl Pipeline<'_> {
    /// Works up to a submission that is ready to be handed in.
    pub(crate) async fn solve(&self, engine: &mut Engine<'_>) -> Result<Winner, Stop> {
        let known = match engine.dataset().await {
            Ok(dataset) => Engine::knowledge(&dataset).map(|knowledge| (dataset, knowledge)),
            Err(stop) => Err(stop),
        };
        let (dataset, mut knowledge) = match known {
            Ok(known) => known,
            Err(Stop::Fallback(reason)) if self.model.is_some() => {
                self.read_request(None).await?;
                return Ok(Winner::NoPipeline(reason));
            }
            Err(stop) => return Err(stop),
        };
        let request = self.read_request(Some(&dataset)).await?;
        let profile = engine.profile().await?;
        let traits = Traits::new(&dataset.kind, &dataset.task, &dataset.metric, &profile);
        let recollection = self.recall(&traits).await?;
        recollection.enrich(&mut knowledge);
        let evidence = retrieve(&dataset, &knowledge, &profile, &recollection.evidence());
        let text = format!("{} pieces of evidence", evidence.len());
        self.context.note_with("evidence", text, json!({ "profile": profile, "evidence": evidence }))?;
        let known = Known { dataset, knowledge, profile, request, evidence, recollection, traits };
        let mut failures = Vec::new();
        let mut fallback: Option<Box<Attempt>> = None;
        for round in 0..=self.rounds() {
            let plans = self.plan(&known, &failures, round).await?;
            let demands = Demands {
                constraints: self.options.constraints.clone(),
                metric: self.task.metric.name.clone(),
                round,
            };
            let attempts = search::carry_out(engine, self.context, plans, &demands).await?;
            match self.choose(engine, attempts, (&known, round), &mut failures).await? {
                Choice::Winner(winner) => return Ok(winner),
                // The latest is as good as any that did not pass, and its files are there.
                Choice::Failed(attempt) => fallback = attempt.or(fallback),
            }
        }
        let reason = failures.last().cloned().unwrap_or_else(|| "no plan could be made".to_owned());
        match fallback {
            Some(attempt) => {
                let name = &attempt.planned.plan.name;
                let text = format!("no plan passed; hands in {name}, which did not ({reason})");
                self.context.note("fallback", text)?;
                Ok(attempt.branch.map_or(Winner::Trunk, Winner::Fork))
            }
            None => Err(Stop::Fallback(reason)),
        }
    }

    /// Recalls what worked before. A memory that cannot be used costs its hints, and no episode.
    async fn recall(&self, traits: &Traits) -> Result<Recollection, Stop> {
        let Some(memory) = &self.options.memory else { return Ok(Recollection::default()) };
        match memory.recall(&traits.kind, &traits.task).await {
            Ok(remembered) => Ok(Recollection::of(traits, remembered)),
            Err(error) => {
                self.context.note("memory", format!("nothing is recalled: {}", chain(&error)))?;
                Ok(Recollection::default())
            }
        }
    }

    /// Keeps what passed all checks for the next time.
    async fn remember(&self, experience: Option<Experience>) -> Result<(), Stop> {
        let (Some(memory), Some(experience)) = (&self.options.memory, experience) else { return Ok(()) };
        if let Err(error) = memory.remember(&experience).await {
            self.context.note("memory", format!("nothing is remembered: {}", chain(&error)))?;
        }
        Ok(())
    }

    /// Without a model a second round would plan the same.
    fn rounds(&self) -> u32 {
        if self.model.is_some() { self.options.rounds } else { 0 }
    }

    /// Reads the request; one that is none ends the episode with the reason.
    pub(crate) async fn read_request(
        &self,
        dataset: Option<&Dataset>,
    ) -> Result<request::ParsedRequest, Stop> {
        self.context.note("request", "reads the request")?;
        let reading = match &self.model {
            None => request::by_rule(&self.task, dataset),
            Some(model) => match request::by_model(model.as_ref(), &self.task, dataset).await {
                Ok(reading) => reading,
                Err(AskError::Unusable { reason, .. }) => {
                    self.context.note("request", format!("the model's reading cannot be used: {reason}"))?;
                    request::by_rule(&self.task, dataset)
                }
                Err(AskError::Model(error)) => return Err(Stop::Failed(error.into())),
            },
        };
        let verdict = reading.verdict;
        self.context.verdict(verdict.clone())?;
        if !verdict.passed() {
            return Err(Stop::Failed(AgentError::Unsuitable {
                agent: "automl".to_owned(),
                task: self.task.name.to_string(),
                reason: format!("the request does not pass: {}", verdict.reason),
            }));
        }
        self.context.note_with("request", reading.parsed.user.intent.clone(), json!(reading.parsed))?;
        Ok(reading.parsed)
    }

    /// Draws the round's plans. Each gets a verdict; those that a model could not write are replaced by what is known.
    async fn plan(&self, known: &Known, failures: &[String], round: u32) -> Result<Vec<Planned>, Stop> {
        let count = self.options.plans.unwrap_or(if self.model.is_some() { PLANS } else { 1 }).max(1);
        let text = format!("{count} {}", if count == 1 { "plan" } else { "plans" });
        self.context.note("plan", text)?;
        let forbidden = self.options.forbidden();
        let demands: Vec<String> = self.options.constraints.iter().map(ToString::to_string).collect();
        let by_knowledge = |count| {
            planning::by_knowledge(&known.knowledge, &known.profile, count, &forbidden, &known.recollection)
        };
        let Some(model) = &self.model else {
            let plans = by_knowledge(count);
            for planned in &plans {
                self.judge_plan(planned, Judge::Rule, round)?;
            }
            return Ok(plans);
        };
        let case = Case {
            instruction: &self.task.instruction,
            request: &known.request,
            dataset: &known.dataset,
            knowledge: &known.knowledge,
            profile: &known.profile,
            evidence: &known.evidence,
            constraints: &demands,
            forbidden: &forbidden,
            count: (round + 1) * u32::try_from(count).unwrap_or(u32::MAX),
            failures,
        };
        // Numbered on over the rounds, so that no two draws of an episode are the same request.
        let first = round * u32::try_from(count).unwrap_or(u32::MAX);
        let draws = (0..count).map(|index| {
            planning::draw(
                model.as_ref(),
                &case,
                first.saturating_add(u32::try_from(index).unwrap_or(u32::MAX)),
            )
        });
        let mut plans: Vec<Planned> = Vec::new();
        for drawn in futures_util::future::join_all(draws).await {
            match drawn {
                Ok(mut planned) => {
                    while plans.iter().any(|there| there.plan.name == planned.plan.name) {
                        planned.plan.name.push_str("-too");
                    }
                    self.judge_plan(&planned, Judge::Model, round)?;
                    plans.push(planned);
                }
                Err(AskError::Unusable { reason, .. }) => {
                    let reason = format!("the planner's answers cannot be used: {reason}");
                    self.context.verdict(Verdict {
                        stage: VerdictStage::Plan,
                        subject: format!("draw {}", plans.len() + 1),
                        round,
                        outcome: Outcome::Failed,
                        judge: Judge::Rule,
                        reason,
                        evidence: Vec::new(),
                        measured: BTreeMap::new(),
                    })?;
                }
                Err(AskError::Model(error)) => return Err(Stop::Failed(error.into())),
            }
        }
        if plans.is_empty() {
            plans = by_knowledge(1);
            for planned in &plans {
                self.judge_plan(planned, Judge::Rule, round)?;
            }
        }
        Ok(plans)
    }

    fn judge_plan(&self, planned: &Planned, judge: Judge, round: u32) -> Result<(), AgentError> {
        let names: Vec<_> = planned.plan.candidates.iter().map(|candidate| candidate.name.as_str()).collect();
        let (outcome, reason) = if names.is_empty() {
            (Outcome::Failed, "it has no candidate".to_owned())
        } else {
            (Outcome::Passed, format!("{}; candidates: {}", planned.plan.why, names.join(", ")))
        };
        self.context.verdict(Verdict {
            stage: VerdictStage::Plan,
            subject: planned.plan.name.clone(),
            round,
            outcome,
            judge,
            reason,
            evidence: planned.evidence.clone(),
            measured: BTreeMap::new(),
        })
    }

    /// Chooses among what passed, and checks the choice; the next best has its turn when it fails.
    async fn choose(
        &self,
        engine: &mut Engine<'_>,
        attempts: Vec<Attempt>,
        (known, round): (&Known, u32),
        failures: &mut Vec<String>,
    ) -> Result<Choice, Stop> {
        let mut standing = Vec::new();
        for mut attempt in attempts {
            let name = attempt.planned.plan.name.clone();
            for verdict in &attempt.verdicts {
                self.context.verdict(verdict.clone())?;
            }
            match attempt.objection() {
                None => match self.doubt(known, &attempt.planned, attempt.execution.as_ref(), round).await? {
                    None => {
                        standing.push(attempt);
                        continue;
                    }
                    Some(verdict) => {
                        failures.push(format!("{name}: {}", verdict.reason));
                        self.context.verdict(verdict)?;
                    }
                },
                Some(reason) => failures.push(format!("{name}: {reason}")),
            }
            if let Some(branch) = attempt.branch.take() {
                branch.discard().await?;
            }
        }
        let mut failed = None;
        while !standing.is_empty() {
            let Some(chosen) = self.select(engine, &mut standing, round).await? else { break };
            let mut attempt = standing.swap_remove(chosen);
            match self.check(engine, &mut attempt, round).await? {
                Checked::Passed(validated) => {
                    self.remember(known.experience(&attempt, validated)).await?;
                    for other in standing {
                        if let Some(branch) = other.branch {
                            branch.discard().await?;
                        }
                    }
                    return Ok(Choice::Winner(attempt.branch.map_or(Winner::Trunk, Winner::Fork)));
                }
                Checked::Failed(reason) => {
                    failures.push(format!("{}: {reason}", attempt.planned.plan.name));
                    failed = failed.or(Some(Box::new(attempt)));
                }
                Checked::Unusable(reason) => {
                    failures.push(format!("{}: {reason}", attempt.planned.plan.name));
                    if let Some(branch) = attempt.branch {
                        branch.discard().await?;
                    }
                }
            }
        }
        Ok(Choice::Failed(failed))
    }

    /// Asks a model whether something speaks against a result; only a failure counts.
    async fn doubt(
        &self,
        known: &Known,
        planned: &Planned,
        execution: Option<&Execution>,
        round: u32,
    ) -> Result<Option<Verdict>, Stop> {
        let (Some(model), Some(execution)) = (&self.model, execution) else { return Ok(None) };
        let digits = |value: f64| format!("{value:.5}").parse::<f64>().unwrap_or(value);
        let candidates: Vec<_> = planned.plan.candidates.iter().map(|candidate| {
            let of_it: Vec<_> = execution
                .trained
                .iter()
                .filter(|trained| slug(&trained.candidate) == slug(&candidate.name))
                .map(|trained| json!({
                    "result": trained.name, "score": digits(trained.raw), "standard_error": digits(trained.error),
                    "weight": digits(execution.ensemble.weights.get(&trained.name).copied().unwrap_or(0.0)),
                }))
                .collect();
            let broken = execution.broken.iter().find(|broken| slug(&broken.name) == slug(&candidate.name));
            let why = broken.and_then(|broken| broken.reason.trim().lines().last());
            // Only what is part of the result is worth reading.
            let is_used = of_it.iter().any(|result| result["weight"] != 0.0);
            json!({
                "name": candidate.name, "results": of_it, "failed": why,
                "code": candidate.code.as_ref().filter(|_| is_used),
                "model": Some(&candidate.model).filter(|_| is_used),
            })
        }).collect();
        let facts = json!({
            "request": self.task.description, "metric": self.task.metric.name, "goal": self.task.metric.goal,
            "naive_baseline": self.task.metric.baseline, "target": known.dataset.more.get("target"),
            "data": known.profile, "plan": planned.plan.name, "candidates": candidates,
            "result": { "score": digits(execution.ensemble.raw), "standard_error": digits(execution.ensemble.error) },
            "constraints_kept": self.options.constraints.iter().map(ToString::to_string).collect::<Vec<_>>(),
        });
        let question = Question {
            role: "verifier",
            system: prompts::render(prompts::DOUBT, &minijinja::context! {}),
            user: serde_json::to_string_pretty(&facts).unwrap_or_default(),
            draw: 0,
            temperature: 0.0,
            model: model.as_ref(),
        };
        match question.ask(|_: &request::Soundness| Ok(())).await {
            Ok(answer) if !answer.value.sound => Ok(Some(Verdict {
                stage: VerdictStage::Execution,
                subject: planned.plan.name.clone(),
                round,
                outcome: Outcome::Failed,
                judge: Judge::Model,
                reason: answer.value.reason.clone(),
                evidence: vec![answer.evidence(), format!("plan:{}", planned.plan.name)],
                measured: BTreeMap::new(),
            })),
            Ok(_) => Ok(None),
            Err(AskError::Unusable { reason, .. }) => {
                // Nobody doubted in a form that can be used; what was measured stands.
                self.context.note("verify", format!("the verifier's answers cannot be used: {reason}"))?;
                Ok(None)
            }
            Err(AskError::Model(error)) => Err(Stop::Failed(error.into())),
        }
    }

    /// Picks the best plan; where several are as good, the hidden validation decides, if the task has enough of it.
    async fn select(
        &self,
        engine: &mut Engine<'_>,
        attempts: &mut [Attempt],
        round: u32,
    ) -> Result<Option<usize>, Stop> {
        let standings: Vec<Standing> = attempts.iter().filter_map(Attempt::standing).collect();
        let contenders = judge::contenders(&standings);
        let mut validated = BTreeMap::new();
        let left = self.context.meter.remaining().validations;
        // One is kept for the check of what is handed in.
        if contenders.len() > 1 && left > u64::try_from(contenders.len()).unwrap_or(u64::MAX) {
            for index in &contenders {
                if let Some(score) = attempts[*index].validate(engine).await? {
                    validated.insert(*index, score.normalised);
                }
            }
        }
        let Some((chosen, verdict)) = judge::selection(&standings, &contenders, &validated, round) else {
            return Ok(None);
        };
        self.context.verdict(verdict)?;
        Ok(Some(chosen))
    }

    /// Checks what would be handed in: its form, and whether the hidden validation agrees.
    async fn check(
        &self,
        engine: &mut Engine<'_>,
        attempt: &mut Attempt,
        round: u32,
    ) -> Result<Checked, Stop> {
        let plan = attempt.planned.plan.name.clone();
        let failed = |reason: String| Verdict {
            stage: VerdictStage::Implementation,
            subject: plan.clone(),
            round,
            outcome: Outcome::Failed,
            judge: Judge::Execution,
            reason,
            evidence: vec![format!("plan:{plan}")],
            measured: BTreeMap::new(),
        };
        let validated = match attempt.verify(engine).await {
            Ok(()) => {
                // A model that was asked for is worth more than another look at its score, should time run out.
                if let Some(reason) = attempt.save(engine).await? {
                    self.context.note("refit", reason)?;
                }
                attempt.validate(engine).await
            }
            Err(stop) => Err(stop),
        };
        let validated = match validated {
            Ok(validated) => validated.map(|score| score.raw),
            Err(Stop::Fallback(reason)) => {
                self.context.verdict(failed(reason.clone()))?;
                return Ok(Checked::Unusable(reason));
            }
            Err(stop) => return Err(stop),
        };
        let Some(execution) = &attempt.execution else {
            return Ok(Checked::Unusable("it was not carried out".to_owned()));
        };
        let facts =
            judge::Implementation { plan: &plan, execution, metric: &self.task.metric, validated, round };
        let verdict = judge::implementation(&facts);
        let (passed, reason) = (verdict.passed(), verdict.reason.clone());
        self.context.verdict(verdict)?;
        let normalised = validated.and_then(|raw| self.task.metric.normalise(raw));
        Ok(if passed { Checked::Passed(normalised) } else { Checked::Failed(reason) })
    }
}

enum Choice {
    Winner(Winner),
    Failed(Option<Box<Attempt>>),
}

enum Checked {
    /// With the normalised score on the validation split, where there is one.
    Passed(Option<f64>),
    /// It can be handed in, and should not be.
    Failed(String),
    /// It cannot.
    Unusable(String),
}

/// Writes an error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(error.source(), |cause| cause.source())
        .fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
