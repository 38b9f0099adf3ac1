"""Tables of products as shops export them: one reader for training, evaluation, catalogues and the Space.

    table = read_table(Path("products.csv"))
    table.texts["sku"]  # ["00123", None, ...]

Every cell is a text, as it stands in the file: what it means is for [`acebert.data.columns`] and
[`acebert.data.values`] to say. So an id keeps its zeros, and a title "None" stays one.
"""

from acebert.data.tables.files import read_table
from acebert.data.tables.table import RowProblem, Table, TableLimits

__all__ = ["RowProblem", "Table", "TableLimits", "read_table"]
