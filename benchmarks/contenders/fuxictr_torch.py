"""FuxiCTR (PyTorch): its layers and its own training step, on batches that lie in memory already.

Its data loader is left out, to its favour. TF4CTR and CETN are put together from its blocks as their authors' code does.
"""

import itertools
import tempfile

import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.layers import CrossNetV2, FactorizationMachine, FeatureEmbedding, MLP_Block
from fuxictr.pytorch.models import BaseModel
from torch import nn
from torch.nn import functional
from worker import take_turns


def feature_map(task):
    features = FeatureMap("made", tempfile.mkdtemp())
    for i, size in enumerate(task.sizes):
        features.features[f"f{i}"] = {"type": "categorical", "source": "", "vocab_size": size}
    features.labels, features.num_fields, features.total_features = ["click"], len(task.sizes), sum(task.sizes)
    features.default_emb_dim = task.embedding_dim
    return features


class Peer(BaseModel):
    def __init__(self, features, task):
        super().__init__(features, verbose=0, model_root=tempfile.mkdtemp(), metrics=["AUC"])
        self.make(features, task.embedding_dim, len(task.sizes))
        self.compile("adam", "binary_crossentropy", 1e-3)
        self.reset_parameters()
        self.model_to_device()

    def forward(self, inputs):
        return self.answer(self.get_inputs(inputs))


class DNN(Peer):
    def make(self, features, dim, fields):
        self.embedding = FeatureEmbedding(features, dim)
        self.mlp = MLP_Block(fields * dim, [400] * 3, output_dim=1)

    def answer(self, ids):
        return {"y_pred": self.mlp(self.embedding(ids, flatten_emb=True)).sigmoid()}


class DeepFM(Peer):
    def make(self, features, dim, fields):
        self.embedding = FeatureEmbedding(features, dim)
        self.fm = FactorizationMachine(features)
        self.mlp = MLP_Block(fields * dim, [400] * 3, output_dim=1)

    def answer(self, ids):
        embedded = self.embedding(ids)
        return {"y_pred": (self.fm(ids, embedded) + self.mlp(embedded.flatten(start_dim=1))).sigmoid()}


class DCNv2(Peer):
    def make(self, features, dim, fields):
        self.embedding = FeatureEmbedding(features, dim)
        self.cross = CrossNetV2(fields * dim, 3)
        self.mlp = MLP_Block(fields * dim, [400] * 3)
        self.head = nn.Linear(fields * dim + 400, 1)

    def answer(self, ids):
        embedded = self.embedding(ids, flatten_emb=True)
        return {"y_pred": self.head(torch.cat([self.cross(embedded), self.mlp(embedded)], dim=1)).sigmoid()}


class TF4CTR(Peer):
    def make(self, features, dim, fields):
        self.easy, self.hard = FeatureEmbedding(features, dim // 2), FeatureEmbedding(features, dim)
        network = {"output_dim": 1, "dropout_rates": 0.2, "batch_norm": True}  # of the authors' best run on Frappe
        self.simple = MLP_Block(fields * (dim // 2), [400] * 2, **network)
        self.complex = MLP_Block(fields * dim, [400] * 3, **network)
        self.fusion = nn.Linear(2, 1)

    def answer(self, ids):
        simple = self.simple(self.easy(ids, flatten_emb=True))
        hard = self.complex(self.hard(ids, flatten_emb=True))
        return {
            "y_pred": self.fusion(torch.cat([simple, hard], dim=1)).sigmoid(),
            "simple": simple.sigmoid(),
            "hard": hard.sigmoid(),
        }

    def add_loss(self, answer, y):
        easy = torch.where(y == 1, answer["simple"], 1 - answer["simple"])
        hard = torch.where(y == 1, answer["hard"], 1 - answer["hard"])
        twin = 0.25 * (0.7 + easy) * torch.log(easy + 1e-7) + 0.75 * (1.3 - hard) * torch.log(hard + 1e-7)
        return super().add_loss(answer, y) - twin.mean()


class CETN(Peer):
    def make(self, features, dim, fields):
        self.embedding = FeatureEmbedding(features, dim)
        self.left, self.right = zip(*itertools.combinations_with_replacement(range(fields), 2), strict=True)
        widths = [fields * dim, len(self.left) * dim, len(self.left)]
        activations = [nn.GELU, nn.ReLU, nn.Mish]
        self.values = nn.ModuleList()
        for width, activation in zip(widths, activations, strict=True):
            self.values.append(nn.Sequential(nn.Linear(width, 400), activation(), nn.Linear(400, 400), activation()))
        leaky = nn.LeakyReLU
        self.weights = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 400), leaky(), nn.Linear(400, 1), leaky()) for width in widths
        )
        self.heads = nn.ModuleList(nn.Linear(400, 1) for _ in widths)

    def answer(self, ids):
        fields = self.embedding(ids)
        products = fields[:, self.left] * fields[:, self.right]
        views = [fields.flatten(start_dim=1), products.flatten(start_dim=1), products.sum(dim=2)]
        main, first, second = (network(view) for network, view in zip(self.values, views, strict=True))
        values = [main, first + main, second + main]
        weights = [network(view) for network, view in zip(self.weights, views, strict=True)]
        logit = sum(w * head(value) for w, head, value in zip(weights, self.heads, values, strict=True))
        return {"y_pred": logit.sigmoid(), "values": values}

    def add_loss(self, answer, y):
        main, first, second = (functional.normalize(value, dim=1) for value in answer["values"])
        contrast = -torch.log(torch.exp(torch.tensor(1 / 0.3)) / torch.exp(first @ second.T / 0.3).sum(dim=1) + 1e-5).mean()
        cosine = 0.1 * (1 - (main * first).sum(dim=1)).mean() + 0.7 * (1 - (main * second).sum(dim=1)).mean()
        return super().add_loss(answer, y) + 0.1 * contrast + cosine


MODELS = {model.__name__: model for model in (DNN, DeepFM, DCNv2, TF4CTR, CETN)}


def training(model, task):
    """`train()` of a model, and the weights that it trains."""
    model._max_gradient_norm = 10.0
    ids, labels = task.clicks()
    ids, labels = torch.from_numpy(ids).long(), torch.from_numpy(labels)
    model.train()

    def train():
        for rows in torch.randperm(len(labels)).split(task.batch_size):
            batch = dict(zip(model.feature_map.features, ids[rows].T, strict=True))
            model.train_step({**batch, "click": labels[rows]}).item()

    return train, [weight for weight in model.parameters() if weight.requires_grad]


def prepare(task):
    torch.manual_seed(1)
    return training(MODELS[task.model](feature_map(task), task), task)


if __name__ == "__main__":
    take_turns(prepare)
