"""An extension of griffe, which reads the docstrings: the strings in annotations are shapes, not Python."""

import ast
from typing import Any

import griffe


class Shapes(griffe.Extension):
    """Keeps a shape such as ``"batch *shape"`` as a string, which griffe would parse as a product."""

    def on_function_instance(self, *, node: Any, func: griffe.Function, agent: Any, **kwargs: Any) -> None:
        """Sets the annotations of the parameters and of the result anew."""
        args = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        for arg in (each for each in args if each.annotation):
            func.parameters[arg.arg].annotation = self._expression(arg.annotation, func)
        func.returns = self._expression(node.returns, func)

    def on_attribute_instance(self, *, node: Any, attr: griffe.Attribute, agent: Any, **kwargs: Any) -> None:
        """Sets the annotation of a field anew."""
        if isinstance(node, ast.AnnAssign):
            attr.annotation = self._expression(node.annotation, attr)

    @staticmethod
    def _expression(node: ast.AST | None, owner: griffe.Object) -> Any:
        return griffe.get_expression(node, owner.parent, parse_strings=False)
