// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Test} from "forge-std/Test.sol";
import {Pricing} from "../../../contracts/libraries/Pricing.sol";
import {Offer, Order} from "../../../contracts/types/Messages.sol";

contract PricingTest is Test {
    Offer private _offer;
    Order private _order;

    function setUp() public {
        (_offer.pricePerJob, _offer.priceInPerMillion, _offer.priceOutPerMillion) = (100, 3_000_000, 7_000_001);
        (_offer.maxLatencyMs, _offer.lateDiscountBps) = (500, 2500);
        (_order.issuedAtMs, _order.deadlineMs, _order.maxAmount) = (10_000, 20_000, type(uint128).max);
    }

    function test_PriceIsBasePlusUnitsRoundedDown() public view {
        assertEq(_price(10, 1, 10_100, 1), 100 + 30 + 7);
        assertEq(_price(0, 999_999, 10_100, 1), 100 + 6_999_993);
        assertEq(_price(0, 0, 10_100, 2), 100);
    }

    function test_PriceOfAFailedJobIsZero() public view {
        assertEq(_price(10, 10, 10_100, 0), 0);
    }

    function test_PricePastTheDeadlineIsZero() public view {
        assertEq(_price(0, 0, 20_000, 1), 75);
        assertEq(_price(0, 0, 20_001, 1), 0);
    }

    function test_PriceIsDiscountedOnlyWhenLate() public {
        assertEq(_price(1, 0, 10_500, 1), 103);
        assertEq(_price(1, 0, 10_501, 1), 103 - 25);
        _offer.maxLatencyMs = 0;
        assertEq(_price(1, 0, 15_000, 1), 103);
    }

    function test_PriceOfAJobFinishedBeforeItsIssueIsNotLate() public view {
        assertEq(_price(0, 0, 1, 1), 100);
    }

    function test_PriceDiscountAbove100PercentIsFree() public {
        _offer.lateDiscountBps = type(uint16).max;
        assertEq(_price(10, 10, 11_000, 1), 0);
    }

    function testFuzz_PriceNeverExceedsTheOrderAndNeverOverflows(
        Offer memory offer,
        Order memory order,
        uint64 unitsIn,
        uint64 unitsOut,
        uint64 finishedAtMs,
        uint8 status
    ) public pure {
        uint256 price = Pricing.priceDown(offer, order, unitsIn, unitsOut, finishedAtMs, status);
        assertLe(price, order.maxAmount);
    }

    function _price(uint64 unitsIn, uint64 unitsOut, uint64 finishedAtMs, uint8 status) private view returns (uint256) {
        return Pricing.priceDown(_offer, _order, unitsIn, unitsOut, finishedAtMs, status);
    }
}
