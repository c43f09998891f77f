"""The public names of the library."""

from dynconf_core.choosing.comparison import Comparison as Comparison
from dynconf_core.choosing.comparison import compare as compare
from dynconf_core.confidence.measure import MEASURES as MEASURES
from dynconf_core.confidence.measure import ConfidenceMeasure as ConfidenceMeasure
from dynconf_core.confidence.measure import StepOutputs as StepOutputs
from dynconf_core.confidence.smoothing import Smoothing as Smoothing
from dynconf_core.conversion.convert import convert as convert
from dynconf_core.conversion.file import load_snn as load_snn
from dynconf_core.conversion.file import save_snn as save_snn
from dynconf_core.conversion.report import conversion_report as conversion_report
from dynconf_core.data.dataset import DATASETS as DATASETS
from dynconf_core.data.dataset import DataSet as DataSet
from dynconf_core.data.images import Normalisation as Normalisation
from dynconf_core.data.images import TensorImages as TensorImages
from dynconf_core.errors import InputError as InputError
from dynconf_core.evaluation.analysis import Analysis as Analysis
from dynconf_core.evaluation.analysis import analyse as analyse
from dynconf_core.exit.agent import ExitAgent as ExitAgent
from dynconf_core.exit.rule import Rule as Rule
from dynconf_core.experiment.recipe import Recipe as Recipe
from dynconf_core.experiment.settings import Setting as Setting
from dynconf_core.networks.architecture import ARCHITECTURES as ARCHITECTURES
from dynconf_core.networks.architecture import Architecture as Architecture
from dynconf_core.schemes.scheme import SCHEMES as SCHEMES
from dynconf_core.schemes.scheme import ConversionScheme as ConversionScheme
from dynconf_core.simulation.collect import collect as collect
from dynconf_core.simulation.live import run_until_confident as run_until_confident
from dynconf_core.simulation.network import SpikingNetwork as SpikingNetwork
from dynconf_core.traces.schema import Traces as Traces

__version__: str
