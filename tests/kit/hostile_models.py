"""Model files that would run code, or read or write other files."""

import json
import shutil
import zipfile

import h5py
import keras
import numpy as np
import tensorflow as tf

from kit.saved_models import export_scorer

REFUSED = "could run code or read other files, and is refused"
# Of which Keras' loader makes a call, a file that it reads, or code that it runs, if it is let.
LAYERS = {
    "TorchModuleWrapper": ({"module": "gASVIAAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOUjAV0b3VjaJSFlFKULg=="}, f"{REFUSED}|'torch'"),
    "TFSMLayer": ({"filepath": "canary"}, REFUSED),
    "Lambda": ({"function": {"class_name": "__lambda__", "config": {"code": "4wEA", "defaults": None}}}, REFUSED),
    "StringLookup": ({"vocabulary": "/etc/passwd"}, REFUSED),
    "os.system": ({"command": "touch canary"}, "the class 'system', which is not known"),
    "builtins.eval": ({}, "the class 'eval', which is not known"),
    "keras.utils.get_file": ({"origin": "file:///etc/passwd", "fname": "canary"}, REFUSED),
}
KINDS = ["link", "storage"]  # of weights in another file
OUTSIDE = ["../outside", "/tmp/outside", "a/../../outside"]  # members of an archive


def rewritten(saved, path, change):
    """A copy of a `.keras` file whose members are `change(name, content)`."""
    with zipfile.ZipFile(saved) as before, zipfile.ZipFile(path, "w") as after:
        for info in before.infolist():
            after.writestr(info.filename, change(info.filename, before.read(info)))
    return path


def with_layer(name, folder):
    """A file `hostile.keras`, and `honest.keras`, which has a `Dense` layer in the place of that one."""
    arguments, _ = LAYERS[name]
    inputs = keras.Input((3,))
    keras.Model(inputs, keras.layers.Dense(2)(inputs)).save(folder / "honest.keras")

    def change(member, content):
        if member != "config.json":
            return content
        config = json.loads(content)
        module, _, layer = name.rpartition(".")
        for found in config["config"]["layers"]:
            if found["class_name"] == "Dense":
                registered = {"module": module or "keras.layers", "class_name": layer, "registered_name": layer}
                found |= {**registered, "config": {"name": "layer", **arguments}}
        return json.dumps(config)

    return rewritten(folder / "honest.keras", folder / "hostile.keras", change)


def with_weights_elsewhere(kind, saved, folder):
    def change(member, content):
        if member != "model.weights.h5":
            return content
        path, place = folder / "weights.h5", "layers/feature_embedding/vars/0"
        path.write_bytes(content)
        with h5py.File(path, "a") as file:
            shape = file[place].shape
            del file[place]
            if kind == "link":
                file[place] = h5py.ExternalLink("/etc/passwd", "/x")
            else:
                file.create_dataset(place, shape, np.float32, external=[("/etc/passwd", 0, 4 * int(np.prod(shape)))])
        return path.read_bytes()

    return rewritten(saved, folder / "hostile.keras", change)


def with_member(name, saved, folder):
    hostile = shutil.copy(saved, folder / "hostile.keras")
    with zipfile.ZipFile(hostile, "a") as archive:
        archive.writestr(name, "x")
    return hostile


def opened(price, op):
    with tf.control_dependencies([op()]):
        return {"probability": tf.identity(price)}


ACTS = {
    "ReadFile": lambda: tf.io.read_file("/etc/passwd"),
    "WriteFile": lambda: tf.io.write_file("canary", "x"),
    "MatchingFiles": lambda: tf.io.matching_files("/etc/*"),
    "PrintV2": lambda: tf.print("x", output_stream="file://canary"),
    "TextLineDataset": lambda: tf.data.TextLineDataset("/etc/passwd").reduce(0, lambda count, _: count + 1),
}


def export_acting(name, folder):
    export_scorer(folder, serving_default=lambda user, price: opened(price, ACTS[name]))
