"""Hostile configurations, schemas and server configurations, and what is said of each."""

DNN = "model: {name: DNN}\n"
USER = "{label: click, features: [{name: user, type: categorical, "
LEVELS = [f"&a0 [{', '.join(['x'] * 10)}]", *(f"&a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10))]
BOMB = f"[{', '.join(LEVELS)}]"  # ten thousand million values, if anybody wrote them out
WIDE = f"[&a0 [{', '.join(['x'] * 300)}], &a1 [{', '.join(['*a0'] * 300)}], &a2 [{', '.join(['*a1'] * 300)}]]"
MODEL = "model_config_list { config { name: 'm' base_path: '/m' "
CONFIGS = {
    # what YAML can do
    "alias bomb": (f"model: {{name: DNN, units: {BOMB}}}", "more than 1,000,000 values"),
    "wide alias bomb": (f"model: {{name: DNN, units: {WIDE}}}", "more than 1,000,000 values"),
    "a list of hours": (f"model: {{name: DNN, units: [{'x,' * 400_000}]}}", "more than 250,000 tokens"),
    "a text of megabytes": (f"model: {{name: DNN, units: {'x ' * 2**21}}}", "more than 4,194,304 characters"),
    "loop": ("model: &loop {name: DNN, units: [*loop]}", "more than 1,000,000 values"),
    "unknown alias": ("model: {name: *nothing}", "undefined alias"),
    "deep list": ("model: {name: DNN, units: " + "[" * 1200, "recursion"),
    "deep mapping": ("model:\n" + "".join(f"{' ' * depth}a:\n" for depth in range(1, 1200)), "recursion"),
    "nested list": ("model: {name: DNN, units: [[[[[[[400]]]]]]]}", "nested too deeply"),
    "python call": ("model: {name: !!python/object/apply:os.system [exit]}", "could not determine a constructor"),
    "python name": ("model: {name: !!python/name:os.system }", "could not determine a constructor"),
    "own tag": ("model: {name: !load DNN}", "could not determine a constructor"),
    "two documents": (f"{DNN}---\n{DNN}", "a single document"),
    "bytes": ("model: {name: !!binary aGk=}", "model.name is b'hi'"),
    "set": ("model: {name: DNN, units: !!set {a}}", "model.units is {'a'}"),
    "date": ("model: {name: DNN, day: 2026-01-01}", "model.day is datetime.date"),
    "no such date": ("model: {name: DNN, day: 2026-13-41}", "month must be in"),
    "key twice": (f"{DNN}training: {{epochs: 1, epochs: 2}}", "the key 'epochs' is given twice"),
    "section twice": (DNN + DNN, "the key 'model' is given twice"),
    "key of a merge": ("model:\n  <<: {name: DNN}\n  name: LR\n  name: FM", "the key 'name' is given twice"),
    "list as key": ("model: {name: DNN, ? [a] : 1}", "unhashable"),
    "number as key": ("model: {name: DNN, 1: 2}", "the key 1, which is not text"),
    "NUL": ("model: {name: D\0NN}", "not valid YAML"),
    "UTF-16": (DNN.encode("utf-16"), "not valid YAML"),
    "Latin-1": ("model: {name: é}".encode("latin-1"), "not valid YAML"),
    # numbers
    "2^63": (f"{DNN}training: {{batch_size: {2**63}}}", f"training.batch_size is {2**63}"),
    "2^31": (f"{DNN}training: {{epochs: {2**31}}}", f"training.epochs is {2**31}"),
    "a number of 400 digits": (f"{DNN}training: {{learning_rate: 1{'0' * 400}}}", "training.learning_rate is 1000"),
    "a number of 5000 digits": (f"{DNN}training: {{epochs: {'9' * 5000}}}", "4300 digits"),
    "a number of a million digits": (f"{DNN}training: {{epochs: {'9' * 1_000_000}}}", "4300 digits"),
    "octal": (f"{DNN}training: {{epochs: 010}}", "training.epochs is '010'"),
    "sexagesimal": (f"{DNN}training: {{epochs: 1:30}}", "training.epochs is '1:30'"),
    "digits of another script": (f"{DNN}training: {{epochs: １２}}", "training.epochs is '１２'"),
    "NaN": (f"{DNN}training: {{learning_rate: .nan}}", "training.learning_rate is nan"),
    "infinity": (f"{DNN}training: {{clip_norm: .inf}}", "training.clip_norm is inf"),
    "negative": (f"{DNN}training: {{clip_norm: -1.0}}", "training.clip_norm is -1.0"),
    "yes": (f"{DNN}training: {{epochs: yes}}", "training.epochs is True"),
    # names
    "right-to-left key": (f'{DNN}training: {{"epochs\\u202e": 3}}', r"unknown key 'training.epochs\u202e'"),
    "look-alike key": (f"{DNN}training: {{еpochs: 3}}", "unknown key 'training.еpochs'. Did you mean 'epochs'?"),
    "dunder key": (f"{DNN}training: {{__class__: x}}", "unknown key 'training.__class__'"),
}
SCHEMAS = {
    "bomb as label": (f"{{label: {BOMB}, features: []}}", "more than 1,000,000 values"),
    "list as label": (
        f"label: [{', '.join(['x'] * 10_000)}]\nfeatures: [{{name: user, type: categorical}}]",
        "`label` is ['x', ",
    ),
    "path as feature": ("{label: click, features: [{name: ../x, type: categorical}]}", "feature '../x' cannot be the name"),
    "list as count": (USER + f"min_count: [{', '.join(['9'] * 10_000)}]}}]}}", "`min_count` is [9, "),
    "2^63 tokens": (USER + f"min_count: {2**63}}}]}}", f"`min_count` is {2**63}"),
    "2^63 buckets": (USER + f"hash_buckets: {2**63}}}]}}", f"`hash_buckets` is {2**63}"),
    "octal count": (USER + "min_count: 010}]}", "`min_count` is '010'"),
    "negative size": (USER + "size: -1}]}", "`size` is -1"),
    "text as size": (USER + 'size: "9"}]}', "`size` is '9'"),
    "path as hash": (USER + "vocabulary_sha256: ../x}]}", "`vocabulary_sha256` is '../x'"),
    "NaN as mean": ("{label: y, features: [{name: x, type: numeric, transform: scaled, mean: .nan}]}", "`mean` is nan"),
    "no scale": ("{label: y, features: [{name: x, type: numeric, transform: scaled, scale: 0}]}", "`scale` is 0"),
    "negative id": ("{label: y, features: [{name: x, type: numeric, interval_ids: [3, -9]}]}", "`interval_ids` is (3, -9)"),
    "ids without edges": ("{label: y, features: [{name: x, type: numeric, interval_ids: [3, 4]}]}", "`interval_ids` is (3, 4)"),
    "id beyond the size": (
        "{label: y, features: [{name: x, type: numeric, interval_ids: [9], size: 9}]}",
        "`interval_ids` is (9,)",
    ),
    "size of other buckets": (USER + "hash_buckets: 9, size: 99}]}", "`size` is 99"),
    "half a character": (
        '{label: y, features: [{name: x, type: sequence, max_length: 2, separator: "\\ud800"}]}',
        r"`separator` is '\ud800'",
    ),
    "infinite edge": (
        "{label: y, features: [{name: x, type: numeric, transform: edges, edges: [.inf]}]}",
        "finite and strictly",
    ),
    "equal inputs": (
        "{label: y, features: [{name: a.b, type: categorical}, {name: A_b, type: categorical}]}",
        "features 'a.b' and 'A_b' would be one and the same",
    ),
}
LABELS = {
    "label of 2^63": (MODEL + f"version_labels {{ key: 's' value: {2**63} }} }} }}", "is not a model configuration file"),
    "version of 2^63": (MODEL + f"model_version_policy {{ specific {{ versions: {2**63} }} }} }} }}", "out of range"),
    "deep message": ("model_config_list {" * 5000, "is not a model configuration file"),
    "two kinds": (MODEL + "} } custom_model_config {}", "is specified along with"),
    "unknown field": (MODEL + "run: 'sh' } }", 'no field named "run"'),
    "not UTF-8": (b"\xff\xfe", "is not a model configuration file"),
}
FITTED = {
    "deep": ("[" * 100_000, "recursion"),
    "key twice": ('{"label": "y", "label": "z", "features": []}', "the key 'label' is given twice"),
    "cut": ('{"label": "y"', "is not valid JSON"),
    "NUL": ("\0", "is not valid JSON"),
}
FILES = {"run.yaml": CONFIGS, "schema.yaml": SCHEMAS, "schema.json": FITTED, "models.config": LABELS}
