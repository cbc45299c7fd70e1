"""A cross network and an MLP: the backbone of DCN, DCNv2 and GDCN."""

from tfctr.errors import choose
from tfctr.layers import SharedEmbedding, SumFusion, linear
from tfctr.models._twin import twin_outputs


def parallel(ids, selection, cross, deep):
    """Both read the fields; their logits are added: `{"logit", "simple", "complex"}`."""
    return twin_outputs(ids, selection, cross, deep, SumFusion())


def stacked(ids, selection, cross, deep):
    """The MLP reads the crosses: `{"logit"}`."""
    fields, _ = selection(ids)  # (batch, fields, dim)
    return {"logit": linear(1, dtype="float32")(deep(cross(fields)))}  # (batch, 1)


STRUCTURES = {"parallel": parallel, "stacked": stacked}


def deep_cross(schema, ids, embedding_dim, cross, deep, structure):
    """The named logits of a cross network and an MLP, and the embeddings they read."""
    connect = choose(STRUCTURES, structure, "structure")
    selection = SharedEmbedding(schema, embedding_dim)
    return connect(ids, selection, cross, deep), selection.embeddings
