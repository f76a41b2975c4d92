// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {CourtBase} from "./court/CourtBase.sol";
import {CourtCases} from "./court/CourtCases.sol";
import {CourtProofs} from "./court/CourtProofs.sol";
import {ICourt} from "./interfaces/ICourt.sol";
import {IEscrow} from "./interfaces/IEscrow.sol";
import {Case, CourtRules, Juror, Seat} from "./types/Cases.sol";

/// @title Court
/// @notice Signature proofs, demands and judgements. The prose is in `ICourt`, the lanes in `court/`.
contract Court is CourtProofs, CourtCases {
    uint256 private constant _SHORTEST_WINDOW_SECONDS = 30;
    uint256 private constant _ROUNDS = 2;

    /// @inheritdoc ICourt
    uint256 public immutable override LONGEST_SECONDS;

    /// @notice Binds to an escrow and a registry that were built for this very address.
    /// @param escrow Already deployed, as is its registry.
    /// @param rules_ Amounts and windows; all that can follow a session must fit into the registry's dispute time.
    constructor(IEscrow escrow, CourtRules memory rules_) CourtBase(escrow) {
        _requireSameAddress(escrow.COURT(), address(this));
        _requireSameAddress(REGISTRY.COURT(), address(this));
        _requireAtLeast(rules_.jurorFee, 1);
        _requireAtLeast(rules_.bond, _SEATS * rules_.jurorFee);
        _requireAtLeast(rules_.jurorDeposit, rules_.jurorFee);
        _requireAtLeast(rules_.fullWeight, 1);
        _requireAtLeast(rules_.answerSeconds, _SHORTEST_WINDOW_SECONDS);
        _requireAtLeast(rules_.drawSeconds, _SHORTEST_WINDOW_SECONDS);
        _requireAtLeast(rules_.commitSeconds, _SHORTEST_WINDOW_SECONDS);
        _requireAtLeast(rules_.revealSeconds, _SHORTEST_WINDOW_SECONDS);
        // A claim waits, its job is demanded and answered at the last second, and the answer is judged as late, with
        // every juror of both rounds replaced.
        uint256 round = _ROUNDS * (uint256(rules_.drawSeconds) + rules_.commitSeconds) + rules_.revealSeconds;
        uint256 longest =
            2 * uint256(escrow.CHALLENGE_SECONDS()) + rules_.answerSeconds + _ROUNDS * round;
        _requireAtLeast(REGISTRY.DISPUTE_SECONDS(), longest);

        LONGEST_SECONDS = longest;
        _rules = rules_;
    }

    /// @inheritdoc ICourt
    function caseOf(bytes32 caseId) external view override returns (Case memory) {
        return _cases[caseId];
    }

    /// @inheritdoc ICourt
    function seatsOf(bytes32 caseId) external view override returns (Seat[_SEATS] memory) {
        return _seats[caseId];
    }

    /// @inheritdoc ICourt
    function jurorOf(address who) external view override returns (Juror memory) {
        return _jurors[who];
    }

    /// @inheritdoc ICourt
    function jurorCount() external view override returns (uint256) {
        return _poolSize;
    }

    /// @inheritdoc ICourt
    function rules() external view override returns (CourtRules memory) {
        return _rules;
    }

    /// @inheritdoc ICourt
    function burned() external view override returns (uint128) {
        return _burned;
    }

    function _requireSameAddress(address got, address wanted) private pure {
        if (got != wanted) revert Court_WrongRules(uint160(got), uint160(wanted));
    }

    function _requireAtLeast(uint256 got, uint256 limit) private pure {
        if (got < limit) revert Court_WrongRules(got, limit);
    }
}
