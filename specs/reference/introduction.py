"""The hand-written part of `docs/spec.md`; its examples are tested."""

INTRODUCTION = """\
# Spec files

A spec is one TOML file. It says what every run has in common (`[model]`, `[data]`, `[train]` …), which
settings vary (`[factors]`), which combinations are run (`[rules]`) and what is compared (`[[contrasts]]`).
This page is written from the code: `python -m specs.reference.schema > docs/spec.md`.

```toml
name = "explanations"
seeds = [0, 1, 2]

[model]
id = "meta-llama/Llama-3.1-8B"

[data]
source = "graded-dialogues"

[factors.target]
levels.label = {}
levels."label+explanation" = { "target.content" = "label+explanation" }

[factors.rank]
path = "lora.r"
values = [8, 16]

[[contrasts]]
factor = "target"
baseline = "label"
```

This is a matrix of 2 targets × 2 ranks × 3 seeds = 12 cells, and a comparison of both targets at equal
rank and seed.

## Factors

A factor is an axis of the matrix, in one of two forms.

- `levels`: every level has a name and sets any number of keys, as dotted paths (`"train.lr" = 1e-4`) or as
  nested tables (`train.lr = 1e-4`). A level that sets nothing stands for the settings as they are.
- `path` and `values`: the factor sets one key, and every value names its own level. The level of a list is
  called by its items joined by `+`: `["q_proj", "v_proj"]` is the level `q_proj+v_proj`.

A factor may set any key of `model`, `data`, `prompt`, `target`, `lora`, `train`, `evaluate` and `probe`,
nested ones such as `data.columns.label` included. No two factors may set the same key. The run seed is an
axis by itself: the last one, made from `seeds`, and named `seed` in rules.

A factor becomes a coordinate of the store's data. So it cannot have the name of a variable, coordinate or
dimension there (`accuracy`, `entropy`, `gold`, `label`, `layer`, `source`, `seed` …), nor of a result of an
analysis (`difference`, `level`, `pair`, `p_value` …). `engine plan` refuses such names;
`specs/checks/reserved_names.py` lists them.

A factor that makes sense only beside certain levels of others says so with `only_when`. Elsewhere it does
not apply (its level is shown as `-`), and the cells that would differ in it alone are one cell:

```toml
extends = "explanations.toml"

[factors.separator]
path = "target.separator"
values = ["\\n", " because "]
only_when = { target = "label+explanation" }
```

## Rules

Cells are the product of all factors, in the order of the file. Rules change which combinations there are.
A pattern names factors and, for each, a level or a list of levels; a cell matches when every named factor
has one of them. A factor that does not apply matches nothing.

- `zip`: these factors advance together, level by level, instead of being multiplied.
- `exclude`: cells that match any of these patterns are left out …
- `include`: … unless they match one of these.

The order is: zip and product, then `only_when`, then `exclude`, then `include`.

```toml
extends = "explanations.toml"

[factors.alpha]
path = "lora.alpha"
values = [16, 32]

[rules]
zip = [["rank", "alpha"]]
exclude = [{ target = "label", rank = 16 }]
include = [{ seed = 0 }]
```

Levels are compared by type and value: `1`, `1.0`, `true` and `"1"` are four different levels.

## Contrasts

A contrast compares levels of a factor with its baseline. Two cells are compared when they agree in all
other factors and in the seed. Factors zipped with the contrasted one move with it. A factor that does
not apply at the baseline does not count.

## Labels and their spellings

`[evaluate.spellings]` names further texts that mean a label, for scoring and for reading generated text
(where case does not matter and the longest spelling wins):

```toml
extends = "explanations.toml"

[evaluate.spellings]
1 = ["one", "1/5"]
5 = ["five", "5/5"]
```

A label's log-likelihood is that of an answer which begins with any of its spellings: the logsumexp over
their token sequences, tokenized where they would stand in the answer. No answer is counted twice:

- The same tokens count once.
- Where one spelling of a label begins another ("5" and "5/5"), the shortest counts, for it covers the longer.
- Where a spelling of one label begins one of another ("1" and "10"), the text that follows a label in the
  target is added to all: the end token, the beginning of the separator, or either.

Tokens that all spellings begin with belong to the prompt.

What is scored and watched is what is trained. The prompt, the stem (what stands before the label), the label
and what stands behind it are tokenized in pieces that no token crosses. The pieces are the same for training,
scoring, the probe and generation. Spaces go to the piece that follows them. Every target ends with the
tokenizer's end token, or the one that `model.end_token` names. A tokenizer is refused before training if it
does not know a label, a spelling or another text that the spec writes into targets (`target.prefix`,
`target.separator`, `target.filler`), reads two labels alike, or loses what a written target is read by.

Data is text: what looks like a control token in it ("<eos>", "<|im_end|>") is read as letters, in prompts,
chat messages and targets. Control tokens come from the tokenizer's beginning, from the chat template, and, in
a plain prompt, from what `prompt.template` and `prompt.system` write themselves.

Spellings change neither training nor the probe. Training counts the loss from the first token that differs
between labels. So where a tokenizer gives digits, but not words, a space of their own, it trains digits
alone.

Generated text names a label where it begins with one of its spellings and the word or number ends with it.
With labels 1 to 5 and words:

| the text begins with | label |
| --- | --- |
| "4.", "4, because", "4: good", "4 out of 5" | 4 |
| "4.5", "4,5", "4 1/2", "1,000", "1 000", "3-4", "4%" | none: another number |
| "4/5" | none, unless it is a spelling |
| "good-natured", "B+", "++", "A++" | not good, not B, not +, not A+ |
| "4 or 5", "3 to 5", "yes/no", "good and bad" | none: it names other labels as well |
| "4, 5", "yes - no", where the line or sentence says no more | none, too ("4, 5 words would do" is 4) |
| "4 or 10" | none: joined to a number, any number is another one |

Accents and vowel signs belong to the word. What the target has behind its label ends it in any case. Answers
that name no label are wrong ones, and counted (`unparsed_share`).

## Transfer

`[evaluate.data]` lays keys over `[data]` for the test examples alone. Cells that differ only there share
their training, so this matrix trains twice and evaluates four times per target, rank and seed:

```toml
extends = "explanations.toml"

[factors.train_on]
path = "data.dimension"
values = ["naturalness", "coherence"]

[factors.test_on]
path = "evaluate.data.dimension"
values = ["naturalness", "coherence"]
```

## Many wordings of a test prompt

`[evaluate.prompt]` lays keys over `[prompt]` in the same way. What a model answers hangs on the wording of
the question, so one training can be tested with several (FormatSpread: Sclar et al., arXiv 2310.11324). The
probe and the interventions read the test prompt, too; fitted lenses read the training's.

```toml
extends = "explanations.toml"

[factors.wording.levels]
trained = {}
question = { evaluate.prompt.template = "How good is this reply, from 1 to 5? {response}\\nRating:" }
short = { evaluate.prompt.template = "{response}\\nRating:" }
```

## One spec over another

`extends` names another spec, or a list of them, relative to this file; chains are allowed. Tables merge key
by key. The extending file's keys win, and of a list those of the later file. Arrays are replaced, not joined,
and so is every factor of the same name; `factors.NAME = false` drops an inherited one. So a study can be put
on another model or another size without writing it again:

```toml
extends = ["explanations.toml"]

[model]
id = "mistralai/Mistral-7B-v0.1"

[factors]
rank = false
```

A key that is inherited can be taken back, so that its default holds: `train.steps = { unset = true }`.

## Paths

A path is relative to the file in which it stands: `data.source`, `model.id`, `store` and the files of
`[annotate]`, in a spec and in those that it extends. What `--set` sets stands in the spec itself. Without
the key `store` the store is `stores/NAME` beside the spec. So a study finds its data and its results from
whatever folder it is started. A spec from standard input or a pipe goes by the current folder, and so does
`--store`.

Before this rule, paths in an extended file were relative to the outermost spec, and stores to the current
folder. Where a file is missing, `engine plan` names the one that the former rule would have taken; where
results of the experiment lie in the current folder and the spec's store is elsewhere, `engine plan` and
`engine execute` say so, and which `--store` goes on with them.

## Overrides

On the command line, `--set KEY=VALUE` overrides one key, after all files. The value is TOML; a bare word
that is not TOML is taken as a string. `--unset KEY` (or the value `null`) takes a key back:

```sh
engine plan explanations.toml --set train.lr=1e-4 --set model.dtype=float32 --set 'seeds=[0]'
engine plan explanations.toml --unset train.steps
```

## Errors

All mistakes are reported at once, each with file, line and column, what was found and what was expected:

```text
explanations.toml:12:1  train.lrr: unknown key; did you mean "lr"?
explanations.toml:19:14  factors.rank.values[1]: expected an integer >= 1, found the number 16.5
```
"""
