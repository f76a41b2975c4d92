// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Offer, Order} from "../types/Messages.sol";

/// @title The price of a job
/// @notice One function, in Solidity and in Python, held together by one set of vectors.
library Pricing {
    uint256 internal constant UNITS_PER_PRICE = 1_000_000;
    uint256 internal constant ONE_HUNDRED_PERCENT_BPS = 10_000;

    /// @notice Most atoms that a receipt for `order` under `offer` may charge.
    /// @dev Both divisions round down: the per-unit price in the buyer's favour, the discount in the node's.
    /// Cannot overflow: the largest number has 193 bits.
    /// @param offer Price list that the order names.
    /// @param order Order that the job answers.
    /// @param unitsIn Input units.
    /// @param unitsOut Output units.
    /// @param finishedAtMs When the work ended; before `order.issuedAtMs` counts as no time at all.
    /// @param status 0: the job failed and is free.
    /// @return Atoms, never above `order.maxAmount`; 0 past `order.deadlineMs`.
    function priceDown(
        Offer memory offer,
        Order memory order,
        uint64 unitsIn,
        uint64 unitsOut,
        uint64 finishedAtMs,
        uint8 status
    ) internal pure returns (uint256) {
        if (status == 0 || finishedAtMs > order.deadlineMs) return 0;

        uint256 perMillion = uint256(unitsIn) * offer.priceInPerMillion + uint256(unitsOut) * offer.priceOutPerMillion;
        uint256 price = offer.pricePerJob + perMillion / UNITS_PER_PRICE;
        if (_isLate(offer.maxLatencyMs, order.issuedAtMs, finishedAtMs)) {
            price -= (price * _min(offer.lateDiscountBps, ONE_HUNDRED_PERCENT_BPS)) / ONE_HUNDRED_PERCENT_BPS;
        }
        return _min(price, order.maxAmount);
    }

    function _isLate(uint32 maxLatencyMs, uint64 issuedAtMs, uint64 finishedAtMs) private pure returns (bool) {
        return maxLatencyMs > 0 && finishedAtMs > issuedAtMs && finishedAtMs - issuedAtMs > maxLatencyMs;
    }

    function _min(uint256 a, uint256 b) private pure returns (uint256) {
        return a < b ? a : b;
    }
}
